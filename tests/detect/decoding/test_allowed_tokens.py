"""Answers that keep to their task's form: by the loop of our own and by `generate`, greedily and with beams."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda, on_cuda
from tiny_florence import make_image, save_tiny_florence

from grounded_seg.detect.answer.well_formed import AnswerForm, form_of, is_well_formed
from grounded_seg.detect.decoding.allowed_tokens import AllowedTokens, WellFormed
from grounded_seg.detect.decoding.decoder_step import DecoderRows, GreedyRules
from grounded_seg.detect.decoding.greedy import N_AT_ONCE, GreedyLoop
from grounded_seg.detect.decoding.recorded_steps import RecordedSteps
from grounded_seg.detect.model.florence import FlorenceModel, GeneratedAnswer
from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.tasks import TASKS, Task, TaskInput
from grounded_seg.pipeline.load import find_models, load_found_detector
from grounded_seg.records import Image
from grounded_seg.scenes import Split, render_scene
from grounded_seg.scenes.shapes import KINDS
from grounded_seg.settings import DetectSettings, ModelSettings, Precision

INPUTS = {
    TaskInput.NOTHING: ("",),
    TaskInput.PHRASE: ("red car", "dog", "犬"),
    TaskInput.REGION: ("<loc_1><loc_2><loc_30><loc_40>", "<loc_9><loc_9><loc_99><loc_99>"),
}
ASKED = [(task, task.question(text)) for task in TASKS.values() for text in INPUTS[task.takes]] * 2
N_TOKENS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FlorenceModel:
    """Random weights: nearly all of its answers are broken."""
    return load_florence(save_tiny_florence(tmp_path_factory.mktemp("florence")))


@pytest.fixture(scope="module")
def demo() -> FlorenceModel:
    models = ModelSettings(preset="demo", dtype=Precision.FLOAT32)
    return load_found_detector(find_models(models, boxes_only=True), DetectSettings()).model


def asked(model: FlorenceModel, *, restricted: bool, beams: int = 1, n_tokens: int = N_TOKENS) -> list[GeneratedAnswer]:
    """The answers to all questions, in one call: rows of different tasks are in work together."""
    features, about = model.encode_images([make_image(seed) for seed in range(4)]), [n % 4 for n in range(len(ASKED))]
    tasks = [task for task, _ in ASKED] if restricted else None
    texts = [text for _, text in ASKED]
    return model.answer(features, texts, about=about, beams=beams, max_new_tokens=n_tokens, tasks=tasks)


def are_well_formed(model: FlorenceModel, answers: Sequence[GeneratedAnswer]) -> list[bool]:
    pairs = zip(ASKED, answers, strict=True)
    return [is_well_formed(form_of(task), one.token_ids, model.vocabulary) for (task, _), one in pairs]


@pytest.mark.parametrize("beams", [1, 3])
def test_no_answer_is_malformed_and_well_formed_ones_keep_their_tokens(model: FlorenceModel, beams: int) -> None:
    free = asked(model, restricted=False, beams=beams)
    were_well = are_well_formed(model, free)
    assert were_well.count(False) > len(ASKED) / 2
    kept = asked(model, restricted=True, beams=beams)
    assert all(are_well_formed(model, kept))
    # With beams a candidate that isn't the best may have been broken, and room is made for others.
    if beams == 1:
        same = [one.token_ids == other.token_ids for one, other in zip(free, kept, strict=True)]
        assert same == were_well


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 5, 6, 7, 9])
@pytest.mark.parametrize("last", [2, None])
@pytest.mark.parametrize("first", [0, None])
def test_an_answer_that_meets_its_limit_ends_with_a_whole_group(
    model: FlorenceModel, n_tokens: int, last: int | None, first: int | None
) -> None:
    rules = {"forced_last_id": last, "forced_first_id": first}
    before = {name: getattr(model.rules, name) for name in rules}
    for name, value in rules.items():
        object.__setattr__(model.rules, name, value)
    try:
        for beams in (1, 2):
            answers = asked(model, restricted=True, beams=beams, n_tokens=n_tokens)
            assert all(are_well_formed(model, answers))
            assert max(len(one.token_ids) for one in answers) <= n_tokens
    finally:
        for name, value in before.items():
            object.__setattr__(model.rules, name, value)


@torch.inference_mode()
def by_generate(
    model: FlorenceModel, features: torch.Tensor, texts: Sequence[str], tasks: Sequence[Task], n_tokens: int
) -> list[GeneratedAnswer]:
    """The same by `generate` and its processor."""
    answers = []
    for start in range(0, len(texts), N_AT_ONCE):
        some = slice(start, start + N_AT_ONCE)
        encoded = model._encode(features[some], texts[some])
        answers += model._generated(*encoded, model._generation(1, n_tokens), [form_of(one) for one in tasks[some]])
    return answers


def assert_same(found: Sequence[GeneratedAnswer], expected: Sequence[GeneratedAnswer]) -> None:
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    for one, other in zip(found, expected, strict=True):
        for name in ("log_probabilities", "location_probabilities"):
            pair = (np.exp(getattr(one.evidence, name)), np.exp(getattr(other.evidence, name)))
            np.testing.assert_allclose(*pair, rtol=0, atol=1e-5)


def test_the_loop_and_generate_choose_the_same(model: FlorenceModel) -> None:
    features, about = model.encode_images([make_image(seed) for seed in range(4)]), [n % 4 for n in range(len(ASKED))]
    expected = by_generate(model, features[about], [text for _, text in ASKED], [task for task, _ in ASKED], N_TOKENS)
    # Random answers have no end of their own: in the loop questions leave and join all the same.
    assert_same(asked(model, restricted=True), expected)


def test_the_demos_answers_stay_as_they_were(demo: FlorenceModel) -> None:
    task = TASKS["CAPTION_TO_PHRASE_GROUNDING"]
    images = [Image(Path("x.png"), render_scene(Split.VALID, index).pixels) for index in range(4)]
    texts = [task.question(name) for name in (*KINDS, "dog")] * len(images)
    about = [index for index in range(len(images)) for _ in (*KINDS, "dog")]
    features = demo.encode_images(images)
    free = demo.answer(features, texts, about=about)
    kept = demo.answer(features, texts, about=about, tasks=[task] * len(texts))
    well = [is_well_formed(AnswerForm.LABELLED_BOXES, one.token_ids, demo.vocabulary) for one in free]
    assert sum(well) > 0.9 * len(texts)
    for one, other, is_well in zip(free, kept, well, strict=True):
        assert is_well_formed(AnswerForm.LABELLED_BOXES, other.token_ids, demo.vocabulary)
        if is_well:
            assert_same([other], [one])


def test_scores_are_of_the_logits_as_they_are(model: FlorenceModel) -> None:
    """What the restriction forces has the probability that the model gave it, not a share of what is allowed."""
    for answer in asked(model, restricted=True)[:5]:
        assert answer.evidence.location_probabilities.sum(axis=1).max() < 1.0
    task = TASKS["OD"]
    [answer] = model.answer(
        model.encode_images([make_image(1)]), [task.question()], max_new_tokens=N_TOKENS, tasks=[task]
    )
    features = model.encode_images([make_image(1)])
    with torch.inference_mode():
        encoded, mask = model._encode(features, [task.question()])
        said = torch.tensor([[model.rules.start_id, *answer.token_ids[:-1]]])
        states = model.network.model.language_model.decoder(
            input_ids=said, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
        ).last_hidden_state
        probabilities = model.network.lm_head(states)[0].softmax(dim=-1).numpy()
    chosen = probabilities[np.arange(len(answer.token_ids)), answer.token_ids]
    np.testing.assert_allclose(np.exp(answer.evidence.log_probabilities), chosen, rtol=0, atol=1e-6)
    locations = probabilities[:, list(model.vocabulary.location_ids)]
    np.testing.assert_allclose(answer.evidence.location_probabilities, locations, rtol=0, atol=1e-6)


def test_questions_of_no_task_are_free_beside_others(model: FlorenceModel) -> None:
    features, task = model.encode_images([make_image(1)]), TASKS["OD"]
    texts = ["What is this?", task.question(), "What is this?"]
    free = model.answer(features, texts, about=[0] * 3, max_new_tokens=N_TOKENS)
    found = model.answer(features, texts, about=[0] * 3, max_new_tokens=N_TOKENS, tasks=[None, task, None])
    assert [one.token_ids for one in found][::2] == [one.token_ids for one in free][::2]
    assert found[1].token_ids != free[1].token_ids


def test_recorded_steps_keep_to_the_form(model: FlorenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = asked(model, restricted=True)

    def steps(network: object, lengths: Sequence[int], rules: GreedyRules) -> RecordedSteps:
        rows = DecoderRows(network, rules, model.vocabulary.location_ids, N_AT_ONCE, max(lengths) + 3)
        return RecordedSteps(rows, lambda work: lambda: work())

    loop = GreedyLoop(model.vocabulary.location_ids)
    monkeypatch.setattr(loop, "_steps", steps)
    monkeypatch.setattr(model, "_loop", loop)
    assert_same(asked(model, restricted=True), expected)


def test_the_best_allowed_token_leaves_the_logits_as_they_are(model: FlorenceModel) -> None:
    vocabulary = model.vocabulary
    allowed = AllowedTokens(vocabulary, 1400, torch.device("cpu"))
    logits = torch.randn(3, 1400, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    # In the third row all is equal, and the first that is allowed is taken.
    logits[2], before[2] = 0.0, 0.0
    states = torch.tensor([allowed.starts[form] for form in (AnswerForm.TEXT, AnswerForm.BOXES, AnswerForm.BOXES)])
    left, none = torch.full((3,), 20), torch.zeros(3, dtype=torch.long)
    found = allowed.best(logits, states, left, none)
    torch.testing.assert_close(logits, before, rtol=0, atol=0)
    masked = allowed.masked(logits, states, left, none)
    assert found.tolist() == masked.argmax(dim=-1).tolist()
    assert (masked[0, list(vocabulary.location_ids)] == -torch.inf).all()
    named = set(vocabulary.id_by_token().values())
    # What has logits and no name is never said, nor is text among boxes.
    assert set(masked[1].isfinite().nonzero()[:, 0].tolist()) == {
        *vocabulary.location_ids,
        vocabulary.bos_id,
        vocabulary.eos_id,
    }
    assert set(masked[0].isfinite().nonzero()[:, 0].tolist()) < named


def test_a_step_stays_on_its_device_and_waits_for_nothing(model: FlorenceModel, tmp_path: Path) -> None:
    own = load_florence(save_tiny_florence(tmp_path / "model"))
    with fake_cuda(), torch.inference_mode():
        on_cuda(own.network)
        allowed = AllowedTokens(model.vocabulary, own.network.config.text_config.vocab_size, torch.device("cpu"))
        on_cuda(allowed)
        rules = GreedyRules(2, 2, forced_first_id=0, forced_last_id=2, max_new_tokens=100, allowed=allowed)
        rows = DecoderRows(own.network, rules, own.vocabulary.location_ids, 4, 20)
        encoded = torch.empty(3, 18, 32, device="cuda")
        rows.start(1, encoded, torch.ones(3, 18, dtype=torch.long, device="cuda"), [allowed.starts[form_of(None)]] * 3)
        rows.make_room(70)
        rows.step(4, 70)
        rows.drop(1, 3)
        assert rows.tokens.device.type == "cuda"
        beams = WellFormed(allowed, [AnswerForm.BOXES] * 2, beams=3, last=98, first_is_forced=False)
        ids, scores = torch.ones(6, 1, dtype=torch.long, device="cuda"), torch.randn(6, 1400, device="cuda")
        for _ in range(3):
            assert beams(ids, scores).device.type == "cuda"
            ids = torch.cat([ids, ids[:, :1]], dim=1)
