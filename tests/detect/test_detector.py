from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from tiny_florence import make_image, make_tokenizer, save_adapter, save_tiny_florence

from grounded_seg.detect import AdaptedDetector, FlorenceDetector, load_detector
from grounded_seg.detect.answer.box_scores import TokenEvidence
from grounded_seg.detect.ask import ask
from grounded_seg.detect.model.florence import GeneratedAnswer
from grounded_seg.detect.model.record import write_adapter_base
from grounded_seg.detect.model.vocabulary import Vocabulary
from grounded_seg.detect.tasks import TASKS
from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.errors import DeviceError, UsageError, WeightsError
from grounded_seg.records import Detection
from grounded_seg.settings import DetectSettings, GroundingTask, SuppressionScope
from grounded_seg.weights.locate import LocatedWeights

ANYTHING = DetectSettings(score_threshold=0.0)


class ScriptedModel:
    """Stands in for Florence-2: says what the script says, each token with the probability written before its box."""

    def __init__(self, script: dict[tuple[int, str], Sequence[tuple[str, float]]]) -> None:
        self.script = script
        self.vocabulary = Vocabulary(make_tokenizer())
        self.n_encoded = 0
        self.sizes: list[int] = []

    def using(self, adapter: str | None) -> AbstractContextManager[None]:
        assert adapter is None
        return nullcontext()

    def encode_images(self, images: Sequence[Any]) -> torch.Tensor:
        self.n_encoded += len(images)
        return torch.arange(len(images))

    def answer(
        self, features: torch.Tensor, questions: Sequence[str], *, about: Sequence[int], **_: Any
    ) -> list[GeneratedAnswer]:
        self.sizes.append(len(questions))
        pairs = zip(features[list(about)].tolist(), questions, strict=True)
        return [self._said(self.script.get((row, question), ())) for row, question in pairs]

    def _said(self, parts: Sequence[tuple[str, float]]) -> GeneratedAnswer:
        ids, certainties = [], []
        for text, certainty in parts:
            part = self.vocabulary.encode(text)[1:-1]
            ids += part
            certainties += [certainty] * len(part)
        locations = np.zeros((len(ids), 1000), dtype=np.float32)
        for step, token_id in enumerate(ids):
            if token_id in self.vocabulary.location_ids:
                locations[step, self.vocabulary.location_ids.index(token_id)] = certainties[step]
        return GeneratedAnswer(tuple(ids), TokenEvidence(np.zeros(len(ids), dtype=np.float32), locations))


def grounding(phrase: str) -> str:
    return f"Locate the phrases in the caption: {phrase}"


def said(label: str, *boxes: tuple[float, tuple[int, int, int, int]]) -> list[tuple[str, float]]:
    """A label and its boxes, each with the certainty that it is there."""
    return [(label, 1.0), *(("".join(f"<loc_{value}>" for value in box), certainty) for certainty, box in boxes)]


def found(detections: Sequence[Detection]) -> list[tuple[str, float]]:
    return [(one.prompt, round(one.score, 4)) for one in detections]


LEFT, LEFT_AGAIN, RIGHT = (100, 100, 400, 400), (110, 100, 400, 400), (600, 100, 900, 400)


def test_boxes_come_by_prompt_and_by_score_and_an_absent_thing_gives_none() -> None:
    script = {
        (0, grounding("dog")): said("a dog", (0.5, LEFT), (0.75, RIGHT)),
        (1, grounding("car")): said("car", (0.5, LEFT)),
    }
    images = [make_image(1, 1000, 500), make_image(2, 100, 100), make_image(3)]
    first, second, third = FlorenceDetector(ScriptedModel(script), ANYTHING).detect(images, ["car", "dog"])  # type: ignore[arg-type]
    assert first == (
        Detection("a dog", "dog", (600.5, 50.25, 900.5, 200.25), 0.75),
        Detection("a dog", "dog", (100.5, 50.25, 400.5, 200.25), 0.5),
    )
    assert found(second) == [("car", 0.5)]
    assert third == ()


def detect(settings: DetectSettings, script: dict[str, Any], class_names: list[str] | None = None) -> Any:
    model = ScriptedModel({(0, grounding(phrase)): answer for phrase, answer in script.items()})
    [detections] = FlorenceDetector(model, settings).detect([make_image(1)], list(script), class_names)  # type: ignore[arg-type]
    return found(detections)


def test_what_scores_too_low_is_dropped_and_the_threshold_itself_is_kept() -> None:
    script = {"dog": said("dog", (0.25, LEFT), (0.5, RIGHT))}
    assert detect(DetectSettings(score_threshold=0.5), script) == [("dog", 0.5)]


def test_only_the_best_are_kept_over_the_limit() -> None:
    script = {"dog": said("dog", (0.5, LEFT), (0.75, RIGHT)), "cat": said("cat", (0.25, LEFT))}
    assert detect(replace(ANYTHING, max_detections=1), script) == [("dog", 0.75), ("cat", 0.25)]


def test_duplicates_are_looked_for_where_they_are_asked_for() -> None:
    script = {"dog": said("dog", (0.5, LEFT), (0.25, LEFT_AGAIN)), "puppy": said("puppy", (0.75, LEFT))}
    each, all_of_them = [("dog", 0.5), ("puppy", 0.75)], [("dog", 0.5), ("dog", 0.25), ("puppy", 0.75)]
    assert detect(replace(ANYTHING, nms=SuppressionScope.CLASS), script) == each
    assert detect(replace(ANYTHING, nms=SuppressionScope.CLASS), script, ["dog", "dog"]) == [("puppy", 0.75)]
    assert detect(replace(ANYTHING, nms=SuppressionScope.AGNOSTIC), script) == [("puppy", 0.75)]
    assert detect(replace(ANYTHING, nms=SuppressionScope.NONE), script) == all_of_them
    assert detect(replace(ANYTHING, iou_threshold=0.99), script) == all_of_them


def test_a_box_within_a_better_one_is_a_duplicate_if_asked_for() -> None:
    whole, part = (100, 100, 400, 400), (110, 110, 150, 410)
    script = {"car": said("car", (0.5, whole), (0.25, part))}
    both = [("car", 0.5), ("car", 0.25)]
    assert detect(ANYTHING, script) == both
    # 290 of the part's 300 bins of height lie within.
    assert detect(replace(ANYTHING, box_containment_threshold=0.9), script) == [("car", 0.5)]
    assert detect(replace(ANYTHING, box_containment_threshold=0.99), script) == both
    with pytest.raises(UsageError, match="box-containment-threshold is 2"):
        replace(ANYTHING, box_containment_threshold=2)


def test_the_box_of_an_outline_is_drawn_around_it() -> None:
    outline = "".join(f"<loc_{value}>" for value in (500, 100, 900, 500, 500, 900, 100, 500))
    model = ScriptedModel({(0, "Locate red car in the image with mask"): [(outline, 0.5)]})
    settings = replace(ANYTHING, task=GroundingTask.REFERRING)
    [[one]] = FlorenceDetector(model, settings).detect([make_image(1, 1000, 1000)], ["red car"])  # type: ignore[arg-type]
    assert one == Detection("red car", "red car", (100.5, 100.5, 900.5, 900.5), 0.5)


def test_an_open_vocabulary_answer_may_be_boxes() -> None:
    model = ScriptedModel({(0, "Locate dog in the image."): said("dog", (0.5, LEFT))})
    settings = replace(ANYTHING, task=GroundingTask.OPEN_VOCABULARY)
    [[one]] = FlorenceDetector(model, settings).detect([make_image(1)], ["dog"])  # type: ignore[arg-type]
    assert (one.label, one.score) == ("dog", 0.5)


def test_images_are_encoded_once_and_all_questions_of_a_batch_go_together() -> None:
    model = ScriptedModel({})
    prompts = [f"thing {number}" for number in range(15)]
    FlorenceDetector(model, ANYTHING).detect([make_image(1), make_image(2), make_image(3)], prompts)  # type: ignore[arg-type]
    assert model.n_encoded == 3
    # The model itself has a bounded number of them in work.
    assert model.sizes == [45]


def test_nothing_to_look_at_or_for() -> None:
    detector = FlorenceDetector(ScriptedModel({}), ANYTHING)  # type: ignore[arg-type]
    assert detector.detect([], ["dog"]) == []
    assert detector.detect([make_image(1)], []) == [()]
    with pytest.raises(UsageError, match="needs a phrase"):
        detector.detect([make_image(1)], [" "])


def test_running_out_of_memory_is_said_in_one_line() -> None:
    model = ScriptedModel({})

    def fail(_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("a page of numbers")

    model.encode_images = fail  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="--batch-size"):
        FlorenceDetector(model, ANYTHING).detect([make_image(1)], ["dog"])  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights know no end."""
    monkeypatch.setattr("grounded_seg.detect.detector.MAX_NEW_TOKENS", 24)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> LocatedWeights:
    folder = save_tiny_florence(tmp_path_factory.mktemp("florence"))
    return LocatedWeights(path=folder, name="tiny", revision=None, sha256="0" * 64)


def load(weights: LocatedWeights, adapter: LocatedWeights | None = None, **settings: Any) -> FlorenceDetector:
    options = replace(ANYTHING, **settings)
    return load_detector(weights, adapter, options, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("beams", [1, 3])
def test_an_image_alone_and_in_a_batch_gives_the_same(weights: LocatedWeights, beams: int) -> None:
    detector = load(weights, task=GroundingTask.REFERRING, nms=SuppressionScope.NONE, beams=beams)
    images = [make_image(number, 50 + 17 * number, 60 + 11 * (number % 5)) for number in range(16)]
    prompts = ["a large red car", "ö"]
    together = detector.detect(images, prompts)
    assert sum(map(len, together)) > len(images)
    for image, expected in zip(images, together, strict=True):
        alone = [one for prompt in prompts for one in detector.detect([image], [prompt])[0]]
        assert [(one.prompt, one.label, one.box_xyxy) for one in alone] == [
            (one.prompt, one.label, one.box_xyxy) for one in expected
        ]
        assert [one.score for one in alone] == pytest.approx([one.score for one in expected], abs=1e-5)
        for prompt in prompts:
            scores = [one.score for one in expected if one.prompt == prompt]
            assert all(0 <= low <= high <= 1 for high, low in pairwise([1.0, *scores]))


def test_an_adapter_is_merged_if_it_belongs_to_the_base(weights: LocatedWeights, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter")
    adapter = LocatedWeights(path=folder, name="adapter", revision=None, sha256="2" * 64)
    write_adapter_base(folder, weights)
    with_adapter = load(weights, adapter).model.network.state_dict()
    bare = load(weights).model.network.state_dict()
    assert with_adapter.keys() == bare.keys()
    assert any(not torch.equal(with_adapter[name], bare[name]) for name in bare)
    with pytest.raises(WeightsError, match="trained on tiny"):
        load(replace(weights, sha256="3" * 64, name="another"), adapter)


def test_one_of_several_adapters_is_chosen_for_each_call(weights: LocatedWeights, tmp_path: Path) -> None:
    adapters = {}
    for name, targets in (("text", ["q_proj"]), ("vision", ["qkv"])):
        config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
        folder = save_adapter(tmp_path / name, config)
        write_adapter_base(folder, weights)
        adapters[name] = LocatedWeights(path=folder, name=name, revision=None, sha256="2" * 64)
    options = replace(ANYTHING, task=GroundingTask.REFERRING)
    cpu = {"device": torch.device("cpu"), "dtype": torch.float32}
    several = load_detector(weights, None, options, adapters=adapters, **cpu)
    images, seen = [make_image(1)], set()
    for name in ("vision", None, "text", "vision"):
        alone = load_detector(weights, adapters[name] if name else None, options, **cpu).detect(images, ["dog"])
        found = several.detect(images, ["dog"], adapter=name)
        assert [one.box_xyxy for one in found[0]] == [one.box_xyxy for one in alone[0]]
        seen.add(found[0])
    assert len(seen) == 3
    with pytest.raises(UsageError, match="no adapter 'nuts' is loaded, there are text, vision"):
        several.detect(images, ["dog"], adapter="nuts")
    with pytest.raises(UsageError, match="no adapter 'text' is loaded"):
        load(weights).detect(images, ["dog"], adapter="text")


def test_an_adapter_by_name_sees_images_as_it_was_trained_on(weights: LocatedWeights, tmp_path: Path) -> None:
    adapters = {}
    for name, facts in (("whole", {}), ("card", {"image_size": 24})):
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=False)
        folder = save_adapter(tmp_path / name, config)
        write_adapter_base(folder, weights, facts)
        adapters[name] = LocatedWeights(path=folder, name=name, revision=None, sha256="2" * 64)
    options = replace(ANYTHING, task=GroundingTask.REFERRING)
    cpu = {"device": torch.device("cpu"), "dtype": torch.float32}
    several = load_detector(weights, None, options, adapters=adapters, **cpu)
    # Wider than high: resized to a square and then to the model's own size it is another image than at once.
    image, task = make_image(1, 300, 100), TASKS["REFERRING_EXPRESSION_SEGMENTATION"]
    seen = set()
    for name in ("card", None, "whole"):
        alone = load_detector(weights, adapters[name] if name else None, options, **cpu)
        [expected] = alone.detect([image], ["dog"])
        [found] = several.detect([image], ["dog"], adapter=name)
        assert [one.box_xyxy for one in found] == [one.box_xyxy for one in expected]
        assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-5)
        seen.add(found)
        # Any other task takes the same adapter, and the same view.
        said = ask(alone.model, task, image, "dog", max_new_tokens=24)
        again = ask(several.model, task, image, "dog", adapter=name, max_new_tokens=24)
        assert [one.polygons for one in again.polygons] == [one.polygons for one in said.polygons]
    assert len(seen) == 3
    assert several.model.pixels.square_side is None
    result = GroundedSegmenter(AdaptedDetector(several, "card"))(image, ["dog"])
    assert tuple(one.detection for one in result.instances) in seen
    with pytest.raises(UsageError, match="no adapter 'nuts' is loaded, there are whole, card"):
        ask(several.model, task, image, "dog", adapter="nuts")


def test_the_vision_tower_is_compiled_if_asked_for(weights: LocatedWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_module, n_graphs = torch.nn.Module.compile, []

    def backend(graph: Any, _: Any) -> Any:
        n_graphs.append(graph)
        return graph.forward

    # torch's own backend takes minutes.
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module, **options: compile_module(module, backend=backend, **options)
    )
    expected = load(weights).model.encode_images([make_image(1)])
    assert not n_graphs
    compiled = load(weights, compile=True)
    # With torch's own kernels: other last bits, by which answers of random weights may differ.
    torch.testing.assert_close(compiled.model.encode_images([make_image(1)]), expected, rtol=1e-4, atol=1e-5)
    assert n_graphs
    assert compiled.detect([make_image(1)], ["dog"])


def test_weights_take_their_final_format_last(weights: LocatedWeights) -> None:
    detector = load_detector(weights, None, ANYTHING, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert detector.model.network.dtype == torch.bfloat16
    assert detector.detect([make_image(1)], ["dog"]) is not None
