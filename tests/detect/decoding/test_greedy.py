"""The decoder loop beside transformers' `generate`, which is asked by the same model's other way."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda, on_cuda
from peft import LoraConfig
from tiny_florence import make_image, save_adapter, save_tiny_florence
from torch import nn
from transformers import GenerationConfig

from grounded_seg.detect.decoding.decoder_step import DecoderRows, GreedyRules
from grounded_seg.detect.decoding.greedy import N_AT_ONCE, GreedyLoop, can_decode
from grounded_seg.detect.decoding.recorded_steps import RecordedSteps, Work
from grounded_seg.detect.model.adapters import NamedAdapters, attach_adapters
from grounded_seg.detect.model.florence import FlorenceModel, GeneratedAnswer
from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.tasks import TASKS
from grounded_seg.pipeline.load import find_models, load_found_detector
from grounded_seg.records import Image
from grounded_seg.scenes import Split, render_scene
from grounded_seg.scenes.shapes import KINDS
from grounded_seg.settings import DetectSettings, ModelSettings, Precision

WORDS = ("dog", "a", "red", "car", "犬", "left", "of", "the")
GROUNDING = TASKS["CAPTION_TO_PHRASE_GROUNDING"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_florence(tmp_path_factory.mktemp("florence"))


@pytest.fixture(scope="module")
def model(folder: Path) -> FlorenceModel:
    """Its answers never end by themselves, the demo's do."""
    return load_florence(folder)


@pytest.fixture(scope="module")
def demo() -> FlorenceModel:
    models = ModelSettings(preset="demo", dtype=Precision.FLOAT32)
    return load_found_detector(find_models(models, boxes_only=True), DetectSettings()).model


def questions_to_demo(model: FlorenceModel, n_images: int) -> tuple[torch.Tensor, list[str], list[int]]:
    """Image tokens, ten questions about each image, and which image each is about."""
    images = [Image(Path("x.png"), render_scene(Split.VALID, index).pixels) for index in range(n_images)]
    names = [*KINDS, *(f"red {kind}" for kind in KINDS), "dog"]
    questions = [GROUNDING.question(names[index % len(names)]) for index in range(10 * n_images)]
    return model.encode_images(images), questions, [index // 10 for index in range(10 * n_images)]


def varied_questions(n_questions: int) -> list[str]:
    draw = np.random.default_rng(0)
    return [GROUNDING.question(" ".join(draw.choice(WORDS, 1 + n % 3))) for n in range(n_questions)]


def features_of(model: FlorenceModel, n_images: int) -> torch.Tensor:
    return model.encode_images([make_image(seed) for seed in range(n_images)])


@torch.inference_mode()
def by_generate(
    model: FlorenceModel, features: torch.Tensor, questions: Sequence[str], n_tokens: int
) -> list[GeneratedAnswer]:
    answers = []
    for start in range(0, len(questions), N_AT_ONCE):
        encoded = model._encode(features[start : start + N_AT_ONCE], questions[start : start + N_AT_ONCE])
        answers += model._generated(*encoded, model._generation(1, n_tokens))
    return answers


def assert_same(found: Sequence[GeneratedAnswer], expected: Sequence[GeneratedAnswer]) -> None:
    """The same tokens, and their probabilities to 1e-5."""
    assert len(found) == len(expected) > 0
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    for one, other in zip(found, expected, strict=True):
        ours, theirs = one.evidence, other.evidence
        assert ours.location_probabilities.shape == (len(one.token_ids), 1000)
        assert ours.log_probabilities.dtype == ours.location_probabilities.dtype == np.float32
        np.testing.assert_allclose(np.exp(ours.log_probabilities), np.exp(theirs.log_probabilities), rtol=0, atol=1e-5)
        np.testing.assert_allclose(ours.location_probabilities, theirs.location_probabilities, rtol=0, atol=1e-5)


def test_200_questions_are_answered_as_by_generate(model: FlorenceModel) -> None:
    questions, features = varied_questions(200), features_of(model, 25).repeat(8, 1, 1)
    found = model.answer(features, questions, max_new_tokens=20)
    assert_same(found, by_generate(model, features, questions, 20))
    assert {len(one.token_ids) for one in found} == {20}
    assert len({one.token_ids for one in found}) > 20


def test_200_questions_to_the_demo_are_answered_as_by_generate(demo: FlorenceModel) -> None:
    features, questions, about = questions_to_demo(demo, 20)
    found = demo.answer(features, questions, about=about, max_new_tokens=40)
    assert_same(found, by_generate(demo, features[about], questions, 40))
    assert len({len(one.token_ids) for one in found}) > 3


def test_answers_longer_than_the_first_memory_are_those_of_generate(folder: Path) -> None:
    model = load_florence(folder)
    questions, features = varied_questions(3), features_of(model, 3)
    found = model.answer(features, questions)
    assert {len(one.token_ids) for one in found} == {128}
    assert_same(found, by_generate(model, features, questions, 1024))


@pytest.mark.parametrize("n_tokens", [1, 2, 3])
@pytest.mark.parametrize("first", [0, 2, None])
@pytest.mark.parametrize("last", [2, None])
def test_forced_tokens_are_those_of_generate(
    folder: Path, first: int | None, last: int | None, n_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_florence(folder)
    for name, value in (("forced_first_id", first), ("forced_last_id", last)):
        object.__setattr__(model.rules, name, value)
    questions, features = varied_questions(3), features_of(model, 3)
    found = model.answer(features, questions, max_new_tokens=n_tokens)
    assert_same(found, by_generate(model, features, questions, n_tokens))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """What happens to the rows: how many start or step, in order."""
    seen: list[tuple[str, int]] = []
    start, step = DecoderRows.start, DecoderRows.step

    def seen_start(rows: DecoderRows, first: int, encoded: torch.Tensor, mask: torch.Tensor) -> None:
        seen.append(("start", len(encoded)))
        start(rows, first, encoded, mask)

    def seen_step(rows: DecoderRows, n_rows: int, n_keys: int) -> None:
        seen.append(("step", n_rows))
        step(rows, n_rows, n_keys)

    monkeypatch.setattr(DecoderRows, "start", seen_start)
    monkeypatch.setattr(DecoderRows, "step", seen_step)
    return seen


def test_rows_leave_and_waiting_questions_join(demo: FlorenceModel, steps: list[tuple[str, int]]) -> None:
    features, questions, about = questions_to_demo(demo, 4)
    found = demo.answer(features, questions, about=about, max_new_tokens=30)
    in_work = [n for what, n in steps if what == "step"]
    assert max(in_work) <= N_AT_ONCE
    assert min(in_work) < max(in_work)
    starts = [n for what, n in steps if what == "start"]
    assert starts[0] == N_AT_ONCE
    assert sum(starts) == 40
    # Not wave by wave: some joined while others were in work.
    threes = zip(steps, steps[1:], steps[2:], strict=False)
    assert any(
        one[1] == "start" and after > n for one, n, after in (((a[0], b[0], c[0]), b[1], c[1]) for a, b, c in threes)
    )
    # The same call has the same bytes, and neighbours change nothing but last bits.
    again = demo.answer(features, questions, about=about, max_new_tokens=30)
    for one, other in zip(found, again, strict=True):
        assert one.token_ids == other.token_ids
        assert one.evidence.log_probabilities.tobytes() == other.evidence.log_probabilities.tobytes()
        assert one.evidence.location_probabilities.tobytes() == other.evidence.location_probabilities.tobytes()
    asked = zip(about, questions, strict=True)
    assert_same(found, [demo.answer(features[[at]], [text], max_new_tokens=30)[0] for at, text in asked])


def set_value(name: str, value: Any) -> Any:
    return lambda model: setattr(model.network.generation_config, name, value)


def replace_layer(model: FlorenceModel) -> None:
    class Quantized(nn.Linear):
        """As a library's quantized layers are."""

    layer = model.network.model.language_model.decoder.layers[0]
    changed = Quantized(layer.fc1.in_features, layer.fc1.out_features)
    changed.load_state_dict(layer.fc1.state_dict())
    layer.fc1 = changed.eval()


@pytest.mark.parametrize(
    "change",
    [
        set_value("min_new_tokens", 12),
        set_value("repetition_penalty", 1.5),
        set_value("suppress_tokens", [5]),
        replace_layer,
        lambda model: model.network.train(),
    ],
    ids=["min_new_tokens", "repetition_penalty", "suppress_tokens", "quantized", "dropout"],
)
def test_what_the_loop_cannot_do_goes_to_generate(folder: Path, change: Any, steps: list[tuple[str, int]]) -> None:
    model = load_florence(folder)
    questions, features = varied_questions(2), features_of(model, 2)
    assert can_decode(model.network, model._generation(1, 20))
    change(model)
    assert not can_decode(model.network, model._generation(1, 20))
    found = model.answer(features, questions, max_new_tokens=20)
    assert not steps
    # Dropout is never the same twice.
    if not model.network.training:
        assert_same(found, by_generate(model, features, questions, 20))


def test_beams_and_rules_against_repetition_go_to_generate(
    model: FlorenceModel, steps: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, generate = [], model.network.generate

    def seen_generate(**named: Any) -> torch.Tensor:
        sizes.append(len(named["attention_mask"]))
        return generate(**named)

    monkeypatch.setattr(model.network, "generate", seen_generate)
    model.answer(features_of(model, 1), varied_questions(20), about=[0] * 20, beams=2, max_new_tokens=3)
    assert not steps
    # The memory is bounded here too.
    assert sizes == [N_AT_ONCE, 4]
    given = model._generation(1, 20).to_dict()
    for name, value in (("no_repeat_ngram_size", 3), ("do_sample", True), ("forced_eos_token_id", [2, 3])):
        assert not can_decode(model.network, GenerationConfig(**(given | {name: value})))


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_beside_the_weights_work_as_in_generate(folder: Path, tmp_path: Path, dora: bool) -> None:
    targets = ["q_proj", "k_proj", "v_proj", "fc1", "out_proj"]
    config = LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights=False, use_dora=dora)
    model, plain = load_florence(folder), load_florence(folder)
    adapter = save_adapter(tmp_path / "adapter", config)
    model.adapters = NamedAdapters(attach_adapters(model.network, {"one": adapter}), {"one": None})
    questions, features = varied_questions(6), features_of(plain, 6)
    base = plain.answer(features, questions, max_new_tokens=20)
    for name in ("one", None):
        with model.using(name):
            assert can_decode(model.network, model._generation(1, 20))
            found = model.answer(features, questions, max_new_tokens=20)
            assert_same(found, by_generate(model, features, questions, 20))
        assert ([one.token_ids for one in found] == [one.token_ids for one in base]) is (name is None)


@pytest.mark.parametrize("dtype", [Precision.BFLOAT16, Precision.FLOAT16])
def test_half_precision_says_what_generate_does_but_for_near_ties(dtype: Precision) -> None:
    models = ModelSettings(preset="demo", dtype=dtype)
    demo = load_found_detector(find_models(models, boxes_only=True), DetectSettings()).model
    features = demo.encode_images([Image(Path("x.png"), render_scene(Split.VALID, n).pixels) for n in range(3)])
    questions, about = [GROUNDING.question(kind) for kind in KINDS] * 3, [n for n in range(3) for _ in KINDS]
    found = demo.answer(features, questions, about=about)
    expected = by_generate(demo, features[about], questions, 256)
    ids, location_0 = demo.vocabulary.location_ids, demo.vocabulary.location_ids[0]
    off = []
    for one, other in zip(found, expected, strict=True):
        assert one.evidence.log_probabilities.dtype == np.float32
        for a, b in zip(one.token_ids, other.token_ids, strict=False):
            if a in ids or b in ids:
                off.append(abs(a - b) if a in ids and b in ids else 1000)
    assert min(ids) == location_0
    assert len(off) > 20
    assert np.mean(np.array(off) <= 1) >= 0.95


def test_recorded_steps_give_the_same(demo: FlorenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the GPU's recording: it can only repeat the very work that it was given."""
    recorded: list[Any] = []

    def record(work: Work) -> Work:
        recorded.append(work)
        return lambda: work()

    features, questions, about = questions_to_demo(demo, 3)
    expected = demo.answer(features, questions, about=about)
    kept: list[RecordedSteps] = []

    def steps(network: Any, lengths: Sequence[int], rules: GreedyRules) -> RecordedSteps:
        if not kept:
            rows = DecoderRows(network, rules, demo.vocabulary.location_ids, N_AT_ONCE, max(lengths) + 9)
            kept.append(RecordedSteps(rows, record))
        return kept[0]

    loop = GreedyLoop(demo.vocabulary.location_ids)
    monkeypatch.setattr(loop, "_steps", steps)
    monkeypatch.setattr(demo, "_loop", loop)
    for n_questions in (30, 3, 1):
        found = demo.answer(features, questions[:n_questions], about=about[:n_questions])
        assert_same(found, expected[:n_questions])
    # Few shapes, though answers left one after the other.
    assert 3 < len(recorded) < 15


def test_steps_that_cannot_be_recorded_are_done_without(model: FlorenceModel, caplog: pytest.LogCaptureFixture) -> None:
    done: list[tuple[int, int]] = []

    class Rows:
        n_rows, capacity = 16, 128

        def make_room(self, n_tokens: int) -> None:
            assert n_tokens <= self.capacity

        def step(self, n_rows: int, n_keys: int) -> None:
            done.append((n_rows, n_keys))

    def record(_: Work) -> Work:
        raise RuntimeError("operation not permitted when stream is capturing")

    rows: Any = Rows()
    steps = RecordedSteps(rows, record)
    for n_rows, n_keys in ((5, 10), (5, 64), (16, 65), (3, 65)):
        steps.step(n_rows, n_keys)
    assert done == [(8, 64), (8, 64), (16, 128), (4, 128)]
    assert caplog.text.count("can't be recorded") == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_stays_on_its_device_and_waits_for_nothing(folder: Path, dtype: torch.dtype) -> None:
    model = load_florence(folder)
    rules = GreedyRules(start_id=2, end_id=2, forced_first_id=0, forced_last_id=2, max_new_tokens=100)
    model.network.to(dtype=dtype)
    with fake_cuda(), torch.inference_mode():
        on_cuda(model.network)
        rows = DecoderRows(model.network, rules, model.vocabulary.location_ids, 4, 20)
        encoded = torch.empty(3, 18, 32, dtype=dtype, device="cuda")
        rows.start(1, encoded, torch.ones(3, 18, dtype=torch.long, device="cuda"))
        rows.make_room(70)
        rows.step(4, 70)
        rows.drop(1, 3)
        for one in (rows.tokens, rows.answers, rows.positions, rows.log_probabilities, rows.location_probabilities):
            assert one.device.type == "cuda"
        assert rows.answers.shape == (4, 128)
        assert rows.location_probabilities.dtype is torch.float32
