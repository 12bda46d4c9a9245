"""Boxes in, masks out: the same masks as segment-anything's own predictor, and nothing computed in vain."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from grounded_seg.errors import DeviceError
from grounded_seg.masks import mask_from_run_length
from grounded_seg.records import BoxXyxy, Detection, Image, ImageSize
from grounded_seg.segment import load_segmenter
from grounded_seg.segment import segmenter as segmenter_module
from grounded_seg.segment.frame import resized_boxes, resized_pixels, resized_size
from grounded_seg.segment.sam import SamConfig, build_sam, save_sam
from grounded_seg.segment.segmenter import SamSegmenter

CPU = torch.device("cpu")
SMALL = SamConfig(
    image_size=128,
    patch_size=8,
    encoder_embed_dim=32,
    encoder_depth=3,
    encoder_num_heads=4,
    encoder_global_attn_indexes=(2,),
    window_size=5,
    prompt_embed_dim=32,
    decoder_depth=2,
    decoder_mlp_dim=64,
    decoder_num_heads=4,
    iou_head_hidden_dim=32,
)
SIZES = [ImageSize(150, 97), ImageSize(97, 150), ImageSize(64, 64), ImageSize(128, 128), ImageSize(301, 40)]


def random_sam() -> Sam:
    """Build the same `Sam` each time; every parameter matters in it, also those that start as zeros."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        sam = build_sam(SMALL)
        for parameter in sam.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return sam


def random_image(size: ImageSize, seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    return Image(path=Path("x.png"), pixels=rng.integers(0, 256, (size.height, size.width, 3), dtype=np.uint8))


def detection(box_xyxy: BoxXyxy) -> Detection:
    return Detection(label="car", prompt="red car", box_xyxy=box_xyxy, score=0.5)


def random_detections(size: ImageSize, n: int, seed: int = 0) -> list[Detection]:
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0, 0.6, (n, 2))
    ends = starts + rng.uniform(0.1, 0.4, (n, 2))
    boxes = np.concatenate([starts, ends], axis=1) * np.tile([size.width, size.height], 2)
    return [detection((x0, y0, x1, y1)) for x0, y0, x1, y1 in boxes.tolist()]


def official_masks(
    sam: Sam, image: Image, found: list[Detection]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Masks (n, height, width) and scores (n,) of segment-anything's own predictor."""
    predictor = SamPredictor(sam)
    predictor.set_image(image.pixels)
    boxes = torch.tensor([one.box_xyxy for one in found])
    boxes = predictor.transform.apply_boxes_torch(boxes, (image.height, image.width))
    masks, scores, _ = predictor.predict_torch(None, None, boxes=boxes, multimask_output=False)
    return masks[:, 0].numpy(), scores[:, 0].numpy()


@pytest.fixture(scope="module")
def sam() -> Sam:
    return random_sam()


@pytest.fixture(scope="module")
def segmenter() -> SamSegmenter:
    return SamSegmenter(random_sam(), device=CPU, dtype=torch.float32)


def decoded(segmenter: SamSegmenter, image: Image, found: list[Detection]) -> npt.NDArray[np.bool_]:
    (segmented,) = segmenter.segment([image], [found])
    assert segmented.n_empty_masks == 0
    return np.stack([mask_from_run_length(one.mask) for one in segmented.instances if one.mask is not None])


class CountedCalls:
    """Counts the calls of a module, and the rows of each."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.rows: list[int] = []
        self._handle = module.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.rows.append(len(args[0] if args else kwargs["sparse_prompt_embeddings"]))

    def __enter__(self) -> list[int]:
        return self.rows

    def __exit__(self, *exception: object) -> None:
        self._handle.remove()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size.width}x{size.height}")
def test_masks_and_scores_are_those_of_the_official_predictor(
    sam: Sam, segmenter: SamSegmenter, size: ImageSize
) -> None:
    image, found = random_image(size), random_detections(size, 6)
    expected_masks, expected_scores = official_masks(sam, image, found)
    # The comparison means nothing on masks that are all alike.
    assert 0.1 < expected_masks.mean() < 0.9
    assert len({mask.tobytes() for mask in expected_masks}) == 6
    (segmented,) = segmenter.segment([image], [found])
    assert [one.detection for one in segmented.instances] == found
    for one, mask, score in zip(segmented.instances, expected_masks, expected_scores, strict=True):
        assert one.mask is not None
        assert one.mask.size == size
        assert np.mean(mask_from_run_length(one.mask) == mask) >= 0.9999
        assert one.mask_score == pytest.approx(min(max(float(score), 0), 1), abs=1e-3)


def test_scores_beyond_one_are_clamped(segmenter: SamSegmenter) -> None:
    head = segmenter._sam.mask_decoder.iou_prediction_head.layers[-1]
    image = random_image(SIZES[0])
    bias = head.bias.detach().clone()
    try:
        for shift, expected in ((100.0, 1.0), (-100.0, 0.0)):
            head.bias.data.fill_(shift)
            (segmented,) = segmenter.segment([image], [random_detections(image.size, 2)])
            assert [one.mask_score for one in segmented.instances] == [expected, expected]
    finally:
        head.bias.data.copy_(bias)


def test_a_batch_gives_the_masks_of_its_images_alone(segmenter: SamSegmenter) -> None:
    images = [random_image(size, seed) for seed, size in enumerate(SIZES)]
    found = [random_detections(size, 1 + seed, seed) for seed, size in enumerate(SIZES)]
    together = segmenter.segment(images, found)
    for image, one_found, segmented in zip(images, found, together, strict=True):
        (alone,) = segmenter.segment([image], [one_found])
        assert [one.detection for one in segmented.instances] == [one.detection for one in alone.instances]
        for first, second in zip(segmented.instances, alone.instances, strict=True):
            assert first.mask is not None and second.mask is not None  # noqa: PT018
            assert np.mean(mask_from_run_length(first.mask) == mask_from_run_length(second.mask)) >= 0.9999
            assert first.mask_score == pytest.approx(second.mask_score, abs=1e-5)


def test_images_without_boxes_are_not_encoded(segmenter: SamSegmenter) -> None:
    images = [random_image(size) for size in SIZES[:4]]
    found = [[], random_detections(SIZES[1], 2), [], random_detections(SIZES[3], 1)]
    with CountedCalls(segmenter._sam.image_encoder) as encoded, CountedCalls(segmenter._sam.mask_decoder) as asked:
        segmented = segmenter.segment(images, found)
    assert encoded == [2]
    assert asked == [2, 1]
    assert [len(one.instances) for one in segmented] == [0, 2, 0, 1]


def test_no_boxes_at_all_call_no_model(segmenter: SamSegmenter) -> None:
    with CountedCalls(segmenter._sam.image_encoder) as encoded, CountedCalls(segmenter._sam.mask_decoder) as asked:
        assert segmenter.segment([], []) == []
        (segmented,) = segmenter.segment([random_image(SIZES[0])], [[]])
    assert (encoded, asked) == ([], [])
    assert (segmented.instances, segmented.n_empty_masks) == ((), 0)


def test_many_boxes_go_in_chunks_that_change_nothing(segmenter: SamSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_image(SIZES[0])
    found = random_detections(image.size, 7)
    whole = decoded(segmenter, image, found)
    monkeypatch.setattr(segmenter_module, "BOXES_PER_CHUNK", 3)
    monkeypatch.setattr(segmenter_module, "MASK_PIXELS_PER_CHUNK", 2 * 128 * 128)
    with CountedCalls(segmenter._sam.image_encoder) as encoded, CountedCalls(segmenter._sam.mask_decoder) as asked:
        chunked = decoded(segmenter, image, found)
    assert (encoded, asked) == ([1], [3, 3, 1])
    assert np.mean(whole == chunked) >= 0.9999


def test_few_masks_are_floats_at_the_same_time(segmenter: SamSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_image(ImageSize(400, 300))
    monkeypatch.setattr(segmenter_module, "MASK_PIXELS_PER_CHUNK", 2 * 400 * 300 + 1)
    upsampled = []
    postprocess = segmenter._sam.postprocess_masks

    def watched(logits: torch.Tensor, **sizes: tuple[int, int]) -> torch.Tensor:
        upsampled.append(len(logits))
        return postprocess(logits, **sizes)

    monkeypatch.setattr(segmenter._sam, "postprocess_masks", watched)
    segmenter.segment([image], [random_detections(image.size, 5)])
    assert upsampled == [2, 2, 1]


def test_empty_masks_are_dropped_and_counted(segmenter: SamSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_image(SIZES[0])
    found = random_detections(image.size, 4)

    def two_empty(logits: torch.Tensor, input_size: tuple[int, int], original_size: tuple[int, int]) -> torch.Tensor:
        masks = torch.full((len(logits), 1, *original_size), -1.0)
        masks[1, 0, 5, 7] = 1
        masks[3] = 1
        return masks

    monkeypatch.setattr(segmenter._sam, "postprocess_masks", two_empty)
    (segmented,) = segmenter.segment([image], [found])
    assert segmented.n_empty_masks == 2
    assert [one.detection for one in segmented.instances] == [found[1], found[3]]
    masks = [mask_from_run_length(one.mask) for one in segmented.instances if one.mask is not None]
    assert np.argwhere(masks[0]).tolist() == [[5, 7]]
    assert masks[1].all()


@pytest.mark.parametrize(
    ("box_xyxy", "message"),
    [
        ((10.0, 10.0, 10.0, 20.0), r"box 1 \(10, 10, 10, 20\) has no area"),
        ((30.0, 10.0, 20.0, 20.0), "has no area"),
        ((10.0, float("nan"), 20.0, 20.0), r"box 1 \(10, nan, 20, 20\) isn't finite"),
        ((10.0, 10.0, float("inf"), 20.0), "isn't finite"),
        ((150.0, 10.0, 160.0, 20.0), "lies outside the image of 150 x 97 pixels"),
        ((10.0, -20.0, 20.0, 0.0), "lies outside the image"),
    ],
)
def test_impossible_boxes_are_refused_before_any_work(segmenter: SamSegmenter, box_xyxy: BoxXyxy, message: str) -> None:
    boxes = [detection((1.0, 1.0, 9.0, 9.0)), detection(box_xyxy)]
    with CountedCalls(segmenter._sam.image_encoder) as encoded, pytest.raises(ValueError, match=message):
        segmenter.segment([random_image(SIZES[0])], [boxes])
    assert encoded == []


def test_detections_for_another_number_of_images_are_refused(segmenter: SamSegmenter) -> None:
    with pytest.raises(ValueError, match="1 images, but detections for 2"):
        segmenter.segment([random_image(SIZES[0])], [[], []])


def test_out_of_memory_says_what_to_do(segmenter: SamSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB\nand more lines")

    monkeypatch.setattr(segmenter._sam.image_encoder, "forward", full)
    with pytest.raises(DeviceError, match=r"^Out of memory while segmenting 1 images\. Lower --batch-size"):
        segmenter.segment([random_image(SIZES[0])], [random_detections(SIZES[0], 1)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same_masks(segmenter: SamSegmenter, dtype: torch.dtype) -> None:
    image = random_image(SIZES[0])
    found = random_detections(image.size, 4)
    half = SamSegmenter(random_sam(), device=CPU, dtype=dtype)
    assert np.mean(decoded(half, image, found) == decoded(segmenter, image, found)) > 0.97


def test_loaded_from_a_folder_it_is_the_same_segmenter(segmenter: SamSegmenter, tmp_path: Path) -> None:
    save_sam(random_sam(), SMALL, tmp_path)
    loaded = load_segmenter(tmp_path, device=CPU, dtype=torch.float32)
    image = random_image(SIZES[1])
    found = random_detections(image.size, 3)
    assert np.array_equal(decoded(loaded, image, found), decoded(segmenter, image, found))


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_resized_size_is_the_official_one_and_never_zero(width: int, height: int) -> None:
    resized = resized_size(ImageSize(width, height), 1024)
    official_height, official_width = ResizeLongestSide.get_preprocess_shape(height, width, 1024)
    assert (resized.width, resized.height) == (max(1, official_width), max(1, official_height))
    assert max(resized.width, resized.height) == 1024


def test_an_image_thinner_than_a_pixel_of_the_frame_still_works(segmenter: SamSegmenter) -> None:
    image = random_image(ImageSize(1000, 1))
    (segmented,) = segmenter.segment([image], [[detection((100.0, 0.0, 300.0, 1.0))]])
    assert len(segmented.instances) + segmented.n_empty_masks == 1


@pytest.mark.parametrize("size", [*SIZES, ImageSize(40, 301)], ids=lambda size: f"{size.width}x{size.height}")
def test_pixels_and_boxes_move_as_in_the_official_transform(size: ImageSize) -> None:
    official = ResizeLongestSide(128)
    image = random_image(size)
    resized = resized_size(size, 128)
    assert np.array_equal(resized_pixels(image.pixels, resized), official.apply_image(image.pixels))
    boxes = [one.box_xyxy for one in random_detections(size, 5)]
    expected = official.apply_boxes(np.array(boxes), (size.height, size.width))
    assert resized_boxes(boxes, size, resized).tolist() == expected.astype(np.float32).tolist()


def test_boxes_scale_by_hand() -> None:
    boxes = resized_boxes(
        [(0.0, 0.0, 1280.0, 720.0), (640.0, 90.0, 960.0, 180.0)], ImageSize(1280, 720), ImageSize(1024, 576)
    )
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [[0, 0, 1024, 576], [512, 72, 768, 144]]
    assert resized_boxes([], ImageSize(1280, 720), ImageSize(1024, 576)).shape == (0, 4)
