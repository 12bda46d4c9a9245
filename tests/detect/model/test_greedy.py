"""The decoder loop beside transformers' `generate`, which is asked by the same model's other way."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from tiny_florence import make_image, save_adapter, save_tiny_florence
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import GenerationConfig

from grounded_seg.detect.model.adapters import NamedAdapters, attach_adapters
from grounded_seg.detect.model.decoder_step import DecoderRows, GreedyRules
from grounded_seg.detect.model.florence import FlorenceModel, GeneratedAnswer
from grounded_seg.detect.model.greedy import N_AT_ONCE, can_decode
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


def ending_model(folder: Path) -> FlorenceModel:
    """A model whose answers end by themselves, sooner or later."""
    model = load_florence(folder)
    with torch.no_grad():
        model.network.lm_head.weight[model.vocabulary.eos_id] *= 1.7
    return model


@pytest.fixture(scope="module")
def model(folder: Path) -> FlorenceModel:
    return ending_model(folder)


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
    # Some end by themselves, at many lengths, and some are cut off.
    lengths = [len(one.token_ids) for one in found]
    assert len(set(lengths)) > 5
    assert 5 < lengths.count(20) < 195


def test_200_questions_to_the_demo_are_answered_as_by_generate() -> None:
    models = ModelSettings(preset="demo", dtype=Precision.FLOAT32)
    demo = load_found_detector(find_models(models, boxes_only=True), DetectSettings()).model
    images = [Image(Path("x.png"), render_scene(Split.VALID, index).pixels) for index in range(20)]
    questions = [GROUNDING.question(kind) for kind in (*KINDS, "red square", "dog", "blue circle")]
    questions = [questions[index % len(questions)] for index in range(10)] * 20
    features, about = demo.encode_images(images), [index // 10 for index in range(200)]
    found = demo.answer(features, questions, about=about, max_new_tokens=40)
    assert_same(found, by_generate(demo, features[about], questions, 40))
    assert sum(len(one.token_ids) for one in found) > 1000


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


def test_rows_leave_and_waiting_questions_join(model: FlorenceModel, steps: list[tuple[str, int]]) -> None:
    questions, features = varied_questions(40), features_of(model, 8)
    about = [index % 8 for index in range(40)]
    found = model.answer(features, questions, about=about, max_new_tokens=30)
    in_work = [n for what, n in steps if what == "step"]
    assert max(in_work) == N_AT_ONCE
    assert min(in_work) < 4
    starts = [n for what, n in steps if what == "start"]
    assert starts[0] == N_AT_ONCE
    assert sum(starts) == 40
    # Not wave by wave: some joined while others were in work.
    assert any(
        a == "step" and c == "step" and m > k
        for (a, _), (b, k), (c, m) in zip(steps, steps[1:], steps[2:], strict=False)
        if b == "start"
    )
    # The same call has the same bytes, and neighbours change nothing but last bits.
    again = model.answer(features, questions, about=about, max_new_tokens=30)
    for one, other in zip(found, again, strict=True):
        assert one.token_ids == other.token_ids
        assert one.evidence.log_probabilities.tobytes() == other.evidence.log_probabilities.tobytes()
        assert one.evidence.location_probabilities.tobytes() == other.evidence.location_probabilities.tobytes()
    alone = [
        model.answer(features[[at]], [text], max_new_tokens=30)[0] for at, text in zip(about, questions, strict=True)
    ]
    assert_same(found, alone)


def no_loop(*_: Any) -> bool:
    return False


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
    model = ending_model(folder)
    questions, features = varied_questions(2), features_of(model, 2)
    assert can_decode(model.network, model._generation(1, 20))
    change(model)
    assert not can_decode(model.network, model._generation(1, 20))
    found = model.answer(features, questions, max_new_tokens=20)
    assert not steps
    assert_same(found, by_generate(model, features, questions, 20))


def test_beams_and_rules_against_repetition_go_to_generate(model: FlorenceModel, steps: list[tuple[str, int]]) -> None:
    model.answer(features_of(model, 1), varied_questions(1), beams=2, max_new_tokens=5)
    assert not steps
    given = model._generation(1, 20).to_dict()
    for name, value in (("no_repeat_ngram_size", 3), ("do_sample", True), ("forced_eos_token_id", [2, 3])):
        assert not can_decode(model.network, GenerationConfig(**(given | {name: value})))


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_beside_the_weights_work_as_in_generate(folder: Path, tmp_path: Path, dora: bool) -> None:
    targets = ["q_proj", "k_proj", "v_proj", "fc1", "out_proj"]
    config = LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights=False, use_dora=dora)
    model, plain = ending_model(folder), ending_model(folder)
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_says_what_generate_does_but_for_near_ties(dtype: torch.dtype) -> None:
    models = ModelSettings(preset="demo", dtype=Precision.FLOAT32)
    demo = load_found_detector(find_models(models, boxes_only=True), DetectSettings()).model
    demo.to(torch.device("cpu"), dtype)
    features = demo.encode_images([Image(Path("x.png"), render_scene(Split.VALID, n).pixels) for n in range(6)])
    questions, about = [GROUNDING.question(kind) for kind in KINDS] * 6, [n for n in range(6) for _ in KINDS]
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
    assert len(off) > 100
    assert np.mean(np.array(off) <= 1) >= 0.95


def on_fake_gpu(network: nn.Module, dtype: torch.dtype) -> None:
    """Replace all tensors of a network by stand-ins on a GPU; call it within the mode."""
    for module in network.modules():
        for group in (module._parameters, module._buffers):
            for name, tensor in group.items():
                if tensor is not None:
                    kept = tensor.dtype if not tensor.is_floating_point() else dtype
                    fake = torch.empty(tensor.shape, dtype=kept, device="cuda")
                    group[name] = nn.Parameter(fake, requires_grad=False) if group is module._parameters else fake


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_stays_on_its_device_and_waits_for_nothing(folder: Path, dtype: torch.dtype) -> None:
    model = load_florence(folder)
    rules = GreedyRules(start_id=2, end_id=2, forced_first_id=0, forced_last_id=2, max_new_tokens=100)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        on_fake_gpu(model.network, dtype)
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
