"""`GroundedSegmenter` with models that find painted rectangles."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from conftest import Paint
from fakes import ColourDetector, InnerSegmenter, painted

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.errors import ImageError, InputError, UsageError
from grounded_seg.geometry.masks import mask_from_run_length
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Detection, Image, ImageSize, ImageSkipped
from grounded_seg.settings import TileSettings


@pytest.fixture
def segmenter() -> GroundedSegmenter:
    return GroundedSegmenter(ColourDetector(), InnerSegmenter())


def test_one_image_from_path_to_mask(segmenter: GroundedSegmenter, paint: Paint) -> None:
    path = paint("street.png", red=(2, 3, 12, 9))
    result = segmenter(str(path), "red car")
    assert result.path == path
    assert result.size == ImageSize(width=40, height=30)
    [instance] = result.instances
    assert instance.box_xyxy == (2, 3, 12, 9)
    assert (instance.detection.prompt, instance.detection.label) == ("red car", "red thing")
    assert instance.mask is not None
    assert mask_from_run_length(instance.mask).sum() == 8 * 4
    assert instance.mask_score == 0.75


def test_a_decoded_image_needs_no_file(segmenter: GroundedSegmenter) -> None:
    image = Image(Path("not-on-disk"), painted(40, 30, blue=(0, 0, 5, 5)))
    result = segmenter(image, "blue ball")
    assert [instance.box_xyxy for instance in result.instances] == [(0, 0, 5, 5)]
    assert (result.draw(image) != image.pixels).any()


def test_instances_come_in_the_order_of_the_prompts(segmenter: GroundedSegmenter, paint: Paint) -> None:
    path = paint("a.png", red=(0, 0, 9, 9), blue=(20, 10, 30, 20))
    for prompts in ("blue car; red car", ["blue car", "red car"]):
        assert [one.detection.prompt for one in segmenter(path, prompts).instances] == ["blue car", "red car"]


def test_what_is_absent_gives_no_instance(segmenter: GroundedSegmenter, paint: Paint) -> None:
    assert segmenter(paint("a.png", red=(0, 0, 9, 9)), "green car").instances == ()


def test_an_empty_mask_drops_its_detection_and_is_counted(segmenter: GroundedSegmenter, paint: Paint) -> None:
    result = segmenter(paint("a.png", red=(0, 0, 2, 2)), "red car")
    assert result.instances == ()
    assert result.n_empty_masks == 1


def test_boxes_that_no_mask_can_come_of_are_dropped_and_counted(paint: Paint) -> None:
    class SpoiltDetector(ColourDetector):
        def detect(
            self, images: Sequence[Image], prompts: Sequence[str], class_names: Sequence[str] | None = None
        ) -> list[tuple[Detection, ...]]:
            [[good]] = super().detect(images, prompts)
            boxes = [(float("nan"), 0.0, 5.0, 5.0), (40.0, 0.0, 50.0, 9.0), (3.0, 3.0, 3.0, 9.0)]
            return [(*(replace(good, box_xyxy=box) for box in boxes), good)]

    path = paint("a.png", red=(2, 3, 12, 9))
    for segmenter in (InnerSegmenter(), None):
        result = GroundedSegmenter(SpoiltDetector(), segmenter)(path, "red car")
        assert [instance.box_xyxy for instance in result.instances] == [(2, 3, 12, 9)]
        assert result.n_unusable_boxes == 3


def test_given_boxes_are_segmented_without_the_detector(segmenter: GroundedSegmenter) -> None:
    image = Image(Path("a.png"), painted(40, 30))
    box = Detection("car", "car", (5.0, 6.0, 15.0, 20.0), 1.0)
    [result] = segmenter.segment_boxes([image], [[box]])
    [instance] = result.instances
    assert instance.mask is not None
    assert mask_from_run_length(instance.mask).sum() == 8 * 12


def test_tiles_find_an_object_once(paint: Paint) -> None:
    detector = ColourDetector()
    segmenter = GroundedSegmenter(detector, InnerSegmenter(), tiles=TileSettings(side=20, overlap=0.5))
    [instance] = segmenter(paint("a.png", red=(12, 9, 28, 21)), "red car").instances
    assert instance.box_xyxy == (12, 9, 28, 21)
    # The whole picture of 40 x 30, and three columns by two rows of it.
    assert detector.batch_sizes == [1] * 7


def test_without_a_segmenter_there_are_boxes_only(paint: Paint) -> None:
    [instance] = GroundedSegmenter(ColourDetector())(paint("a.png", red=(2, 3, 12, 9)), "red car").instances
    assert instance.box_xyxy == (2, 3, 12, 9)
    assert instance.mask is None
    assert instance.mask_score is None


def test_a_stream_gives_one_outcome_per_image_in_order(segmenter: GroundedSegmenter, paint: Paint) -> None:
    good, other = paint("a.png", red=(0, 0, 9, 9)), paint("c.png")
    bad = good.with_name("b.png")
    bad.write_bytes(b"no image")
    first, second, third = segmenter.stream([good, bad, other], ["red car"], batch_size=2)
    assert isinstance(first, PromptedResult)
    assert isinstance(third, PromptedResult)
    assert (len(first.instances), len(third.instances)) == (1, 0)
    assert isinstance(second, ImageSkipped)
    assert second.path == bad
    assert second.error == "ImageError"
    assert "b.png" in second.reason


def test_a_stream_reads_no_further_than_it_is_asked(segmenter: GroundedSegmenter, paint: Paint) -> None:
    paths = iter([paint("a.png"), paint("b.png"), paint("c.png")])
    next(segmenter.stream(paths, "red car", batch_size=2))
    assert next(paths).name == "c.png"


def test_a_batch_keeps_its_positions_when_an_image_drops_out(paint: Paint) -> None:
    detector = ColourDetector()
    paths = [paint(f"{number}.png") for number in range(5)]
    paths[1].write_bytes(b"")
    list(GroundedSegmenter(detector).stream(paths, "red car", batch_size=2))
    # The places of the second and of a sixth are filled up.
    assert detector.batch_sizes == [2, 2, 2]


def test_a_batch_of_unreadable_images_asks_no_model(paint: Paint) -> None:
    detector = ColourDetector()
    path = paint("a.png")
    path.write_bytes(b"")
    [outcome] = GroundedSegmenter(detector).stream([path], "red car")
    assert isinstance(outcome, ImageSkipped)
    assert detector.batch_sizes == []


def test_one_unreadable_image_is_an_error(segmenter: GroundedSegmenter, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.png"):
        segmenter(tmp_path / "missing.png", "red car")


@pytest.mark.parametrize("prompts", ["", " ; ", [], [""]])
def test_asking_for_nothing_is_an_error(segmenter: GroundedSegmenter, paint: Paint, prompts: str | list[str]) -> None:
    with pytest.raises(UsageError, match="prompt"):
        segmenter(paint("a.png"), prompts)


def test_the_coco_form_has_the_classes_of_the_prompts(segmenter: GroundedSegmenter, paint: Paint) -> None:
    path = paint("a.png", red=(2, 3, 12, 9), blue=(20, 10, 30, 20))
    prompts = PromptSet(("red car", "green car", "blue car"), ("car", "plant", "car"))
    coco = segmenter(path, prompts).to_coco()
    assert [category["name"] for category in coco["categories"]] == ["car", "plant"]
    assert [(image["file_name"], image["width"], image["height"]) for image in coco["images"]] == [("a.png", 40, 30)]
    assert [one["category_id"] for one in coco["annotations"]] == [1, 1]
    assert [one["bbox"] for one in coco["annotations"]] == [[3, 4, 8, 4], [21, 11, 8, 8]]


def test_drawing_reads_the_image_again(segmenter: GroundedSegmenter, paint: Paint) -> None:
    result = segmenter(paint("a.png", red=(2, 3, 12, 9)), "red car")
    drawn = result.draw()
    assert drawn.shape == (30, 40, 3)
    assert drawn.dtype == np.uint8
    result.path.unlink()
    with pytest.raises(ImageError):
        result.draw()


def test_each_image_is_charged_its_share_of_the_batch(segmenter: GroundedSegmenter, paint: Paint) -> None:
    results = list(segmenter.stream([paint("a.png"), paint("b.png")], "red car", batch_size=2))
    shares = [result.seconds for result in results if isinstance(result, PromptedResult)]
    assert shares[0] == shares[1]
    assert set(shares[0]) == {"detect", "segment"}
    assert all(seconds > 0 for seconds in shares[0].values())


def test_an_unknown_number_format_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="float8"):
        GroundedSegmenter.from_preset("demo", dtype="float8")


def test_models_load_from_folders_and_say_which_they_are(tmp_path: Path, paint: Paint) -> None:
    # These need torch, which the other tests here do without.
    from tiny_florence import save_tiny_florence

    from grounded_seg.segment.sam.build import SamConfig, build_sam, save_sam

    config = SamConfig(
        image_size=64, patch_size=16, encoder_embed_dim=16, encoder_depth=1, encoder_num_heads=2,
        encoder_global_attn_indexes=(0,), window_size=2, prompt_embed_dim=32, decoder_depth=1, decoder_mlp_dim=32,
        decoder_num_heads=2, iou_head_hidden_dim=16,
    )  # fmt: skip
    save_sam(build_sam(config), config, tmp_path / "sam")
    florence = save_tiny_florence(tmp_path / "florence")
    segmenter = GroundedSegmenter.from_preset(
        "base", detector=str(florence), segmenter=str(tmp_path / "sam"), device="cpu", offline=True
    )
    assert segmenter.loaded is not None
    assert segmenter.loaded.detector.name == str(florence)
    assert segmenter.loaded.adapter is None
    assert segmenter.loaded.segmenter is not None
    assert len(segmenter.loaded.segmenter.sha256) == 64
    assert segmenter.loaded.device == "cpu"
    assert segmenter(paint("a.png", red=(2, 3, 12, 9)), "red car").size == ImageSize(40, 30)
    boxes_only = GroundedSegmenter.from_preset("base", detector=str(florence), boxes_only=True, device="cpu")
    assert boxes_only.loaded is not None
    assert boxes_only.loaded.segmenter is None


def test_images_in_memory_are_kept_with_their_results(segmenter: GroundedSegmenter, paint: Paint) -> None:
    path = paint("a.png", red=(2, 3, 12, 9))
    pixels = painted(40, 30, red=(2, 3, 12, 9))
    with PIL.Image.open(path) as opened:
        results = segmenter.batch([path, str(path), path.read_bytes(), opened, pixels], "red car")
    assert [len(result) for result in results] == [1] * 5
    assert [result.image is None for result in results] == [True, True, False, False, False]
    assert [result.path.name for result in results] == ["a.png", "a.png", "image-3", "a.png", "image-5"]
    path.unlink()
    assert np.array_equal(results[2].draw(), results[4].draw())
    assert segmenter(pixels, "red car").path == Path("image")


def test_text_is_a_path_and_never_letters(segmenter: GroundedSegmenter, paint: Paint) -> None:
    path = paint("photos/a.png", red=(0, 0, 9, 9))
    paint("photos/more/b.png")
    folder = path.parent
    names = [[outcome.path.name for outcome in segmenter.stream(given, "red car")] for given in (folder, str(folder))]
    assert names == [["a.png", "b.png"]] * 2
    assert [one.path.name for one in segmenter.stream(f"{folder}/*.png", "red car")] == ["a.png"]
    assert [one.path.name for one in segmenter.stream(folder, "red car", recursive=False)] == ["a.png"]
    assert [one.path for one in segmenter.stream(str(path), "red car")] == [path]
    assert [one.path for one in segmenter.batch(str(path), "red car")] == [path]
    mixed = [path, str(folder), f"{folder}/a.*", Path("@a.png"), "@a.png"]
    named = [one.path.name for one in segmenter.stream(mixed, "red car")]
    assert named == ["a.png", "a.png", "b.png", "a.png", "@a.png", "@a.png"]
    with pytest.raises(InputError, match=r"no file or folder is at 'img\.jpg'"):
        segmenter.stream("img.jpg", "red car")


def test_a_stream_takes_images_in_memory_too(segmenter: GroundedSegmenter, paint: Paint) -> None:
    pixels = painted(40, 30, red=(2, 3, 12, 9))
    first, second, third = segmenter.stream([pixels, b"damaged", paint("a.png")], "red car", batch_size=2)
    assert isinstance(first, PromptedResult)
    assert first.image is not None
    assert isinstance(second, ImageSkipped)
    assert "image-2" in second.reason
    assert isinstance(third, PromptedResult)
    assert third.image is None
    [alone] = segmenter.stream(pixels, "red car")
    assert isinstance(alone, PromptedResult)
    assert len(alone) == 1


def test_a_stream_refuses_what_is_wrong_before_it_is_asked_for_the_first(segmenter: GroundedSegmenter) -> None:
    with pytest.raises(UsageError, match="prompt"):
        segmenter.stream(["a.png"], " ; ")
    with pytest.raises(UsageError, match="batch-size is 0"):
        list(segmenter.stream(["a.png"], "red car", batch_size=0))


class ThresholdDetector(ColourDetector):
    """Gives red 0.4 and blue 0.8; drops below its threshold."""

    def __init__(self, score_threshold: float = 0.5) -> None:
        super().__init__()
        self._score_threshold = score_threshold

    def with_score_threshold(self, score_threshold: float) -> "ThresholdDetector":
        return ThresholdDetector(score_threshold)

    def detect(self, images: Sequence[Image], *prompts: Any, **more: Any) -> list[tuple[Detection, ...]]:
        scores = {"red thing": 0.4, "blue thing": 0.8}
        scored = [
            [replace(one, score=scores[one.label]) for one in found]
            for found in super().detect(images, *prompts, **more)
        ]
        return [tuple(one for one in found if one.score >= self._score_threshold) for found in scored]


def test_a_call_has_its_own_score_threshold(paint: Paint) -> None:
    segmenter = GroundedSegmenter(ThresholdDetector(), InnerSegmenter())
    path = paint("a.png", red=(0, 0, 9, 9), blue=(20, 10, 30, 20))
    prompts = "red car; blue car"
    assert segmenter(path, prompts).labels.tolist() == ["blue thing"]
    assert segmenter(path, prompts, score_threshold=0.3).labels.tolist() == ["red thing", "blue thing"]
    assert len(segmenter(path, prompts, score_threshold=0.9)) == 0
    assert [len(one) for one in segmenter.batch([path], prompts, score_threshold=0)] == [2]
    [outcome] = segmenter.stream([path], prompts, score_threshold=0.1)
    assert isinstance(outcome, PromptedResult)
    assert len(outcome) == 2
    assert len(segmenter(path, prompts)) == 1
    with pytest.raises(UsageError, match="score-threshold is 2, it must be between 0 and 1"):
        segmenter(path, prompts, score_threshold=2)


def test_a_detector_without_a_threshold_says_so(segmenter: GroundedSegmenter, paint: Paint) -> None:
    with pytest.raises(UsageError, match="ColourDetector, has no with_score_threshold"):
        segmenter(paint("a.png"), "red car", score_threshold=0.3)


def test_an_unknown_setting_is_told_with_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        GroundedSegmenter.from_preset("demo", score_treshold=0.3, colour=1)  # type: ignore[call-arg]
    message = str(caught.value)
    assert "'score_treshold' (did you mean 'score_threshold'?)" in message
    assert "'colour'" in message
    assert "allow_base_mismatch, beams, " in message
    assert "\n" not in message


def test_wrong_values_of_settings_are_told_together() -> None:
    with pytest.raises(UsageError, match=r"score-threshold is 3.*nms is 'all'.*tile is 0"):
        GroundedSegmenter.from_preset("demo", score_threshold=3, nms="all", tile=0)
    with pytest.raises(UsageError, match="overlap is that of tiles"):
        GroundedSegmenter.from_preset("demo", overlap=0.3)


def test_it_says_which_models_run(segmenter: GroundedSegmenter) -> None:
    assert repr(segmenter) == "GroundedSegmenter(ColourDetector, InnerSegmenter)"
    demo = GroundedSegmenter.from_preset("demo", device="cpu", dtype="float32", boxes_only=True)
    assert repr(demo) == (
        "GroundedSegmenter(detector='demo/detector', adapter='demo/adapter', device='cpu', dtype='float32')"
    )


def test_a_mapping_gives_each_prompt_its_class(segmenter: GroundedSegmenter) -> None:
    pixels = painted(40, 30, red=(2, 3, 12, 9))
    assert segmenter(pixels, {"red car": "vehicle"}).class_names.tolist() == ["vehicle"]
    assert segmenter.batch([pixels], {"red car": "vehicle"})[0].class_names.tolist() == ["vehicle"]
    [outcome] = segmenter.stream([pixels], {"red car": "vehicle", "green car": "vehicle"})
    assert isinstance(outcome, PromptedResult)
    assert outcome.asked.classes == ("vehicle",)


@pytest.mark.parametrize("prompts", [None, 5, [None]])
def test_what_is_no_prompt_is_a_usage_error(segmenter: GroundedSegmenter, prompts: Any) -> None:
    pixels = painted(40, 30)
    for ask in (segmenter.__call__, lambda one, some: segmenter.batch([one], some), segmenter.stream):
        with pytest.raises(UsageError, match=r'give "red car; dog", .*a mapping of prompts to classes, or a PromptSet'):
            ask(pixels, prompts)


def test_an_unknown_setting_of_a_call_is_told_with_those_there_are(segmenter: GroundedSegmenter) -> None:
    pixels = painted(40, 30)
    unknown = r"there is no setting 'conf' \(did you mean 'score_threshold'\?\); the settings are score_threshold$"
    with pytest.raises(UsageError, match=unknown):
        segmenter(pixels, "red car", conf=0.1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=unknown):
        segmenter.batch([pixels], "red car", conf=0.1)  # type: ignore[arg-type]
    known = r"'batchsize' \(did you mean 'batch_size'\?\); the settings are batch_size, recursive, score_threshold$"
    with pytest.raises(UsageError, match=known):
        segmenter.stream([pixels], "red car", batchsize=2)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the models are loaded with their nms; give that to from_preset instead"):
        segmenter(pixels, "red car", nms="none")  # type: ignore[arg-type]


def test_the_words_of_other_tools_are_known_first() -> None:
    told = r"^there is no setting 'conf' \(did you mean 'score_threshold'\?\); the settings are adapter, "
    with pytest.raises(UsageError, match=told):
        GroundedSegmenter.from_preset("demo", conf=0.3)  # type: ignore[call-arg]


def test_a_device_and_a_dtype_of_torch_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked = []
    monkeypatch.setattr("grounded_seg.engine.grounded_segmenter.load_chain", lambda *_, **__: None)
    monkeypatch.setattr(
        "grounded_seg.engine.grounded_segmenter.find_models",
        lambda models, **_: asked.append((models.device, models.dtype)),
    )
    GroundedSegmenter.from_preset("demo", device=torch.device("cpu"), dtype=torch.bfloat16)
    GroundedSegmenter.from_preset("demo", device=torch.device("cuda", 1))
    assert asked == [("cpu", "bfloat16"), ("cuda:1", "auto")]
    with pytest.raises(
        UsageError, match=r"dtype is torch\.float64, it must be one of auto, float32, bfloat16, float16"
    ):
        GroundedSegmenter.from_preset("demo", dtype=torch.float64)
    with pytest.raises(UsageError, match="device is 0, it must be text"):
        GroundedSegmenter.from_preset("demo", device=0)  # type: ignore[arg-type]
