"""Boxes in, masks out: the same masks as segment-anything's own predictor, and nothing computed in vain."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from tiny_sam import CPU, SIZES, SMALL, detection, official_masks, random_detections, random_image, random_sam

from grounded_seg.errors import DeviceError
from grounded_seg.geometry.masks import area_px, mask_from_run_length
from grounded_seg.records import BoxXyxy, Detection, Image, ImageSize
from grounded_seg.segment import load_segmenter
from grounded_seg.segment.resize import resized_boxes, resized_pixels, resized_size
from grounded_seg.segment.sam.build import save_sam
from grounded_seg.segment.sam.network import SamNetwork
from grounded_seg.segment.segmenter import DECODER_BYTES, ENCODER_IMAGES, SamSegmenter
from grounded_seg.settings import SegmentSettings


class Watched:
    """A network that notes the images of each call of its encoder, and the boxes of each call of its decoder."""

    def __init__(self, network: SamNetwork) -> None:
        self._network = network
        self.encoded: list[int] = []
        self.decoded: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def encode(self, images: Sequence[Image]) -> list[torch.Tensor]:
        self.encoded.append(len(images))
        return self._network.encode(images)

    def decode(
        self, embedding: torch.Tensor, boxes_xyxy: torch.Tensor, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.decoded.append(len(boxes_xyxy))
        return self._network.decode(embedding, boxes_xyxy, multimask=multimask)


class SmallMemory(Watched):
    """A network on a device that has no room for more than so many images or boxes at once."""

    def __init__(self, network: SamNetwork, n_images: int, n_boxes: int) -> None:
        super().__init__(network)
        self._n_images, self._n_boxes = n_images, n_boxes

    def encode(self, images: Sequence[Image]) -> list[torch.Tensor]:
        embeddings = super().encode(images)
        return embeddings if len(images) <= self._n_images else self._fail()

    def decode(
        self, embedding: torch.Tensor, boxes_xyxy: torch.Tensor, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        decoded = super().decode(embedding, boxes_xyxy, multimask=multimask)
        return decoded if len(boxes_xyxy) <= self._n_boxes else self._fail()

    @staticmethod
    def _fail() -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB\nand more lines")


class FixedLogits(Watched):
    """A network that finds the same masks on every image, with predicted IoUs of 0.1, 0.2, ..."""

    def __init__(self, network: SamNetwork, logits: torch.Tensor) -> None:
        super().__init__(network)
        self._logits = logits

    def decode(
        self, embedding: torch.Tensor, boxes_xyxy: torch.Tensor, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n_masks = 3 if multimask else 1
        logits = self._logits.unflatten(0, (-1, n_masks))
        return logits, torch.arange(1, 1 + n_masks).mul(0.1).expand(len(logits), -1)


@pytest.fixture(scope="module")
def sam() -> Sam:
    return random_sam()


@pytest.fixture(scope="module")
def network() -> SamNetwork:
    return SamNetwork(random_sam(), device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def segmenter(network: SamNetwork) -> SamSegmenter:
    return SamSegmenter(network)


def decoded(segmenter: SamSegmenter, image: Image, found: list[Detection]) -> npt.NDArray[np.bool_]:
    (segmented,) = segmenter.segment([image], [found])
    assert segmented.n_empty_masks == 0
    return np.stack([mask_from_run_length(one.mask) for one in segmented.instances if one.mask is not None])


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
    for one, mask, score in zip(segmented.instances, expected_masks[:, 0], expected_scores[:, 0], strict=True):
        assert one.mask is not None
        assert one.mask.size == size
        assert np.mean(mask_from_run_length(one.mask) == mask) >= 0.9999
        assert one.mask_score == pytest.approx(min(max(float(score), 0), 1), abs=1e-3)


def test_scores_beyond_one_are_clamped() -> None:
    sam = random_sam()
    segmenter = SamSegmenter(SamNetwork(sam, CPU, torch.float32))
    image = random_image(SIZES[0])
    for shift, expected in ((100.0, 1.0), (-100.0, 0.0)):
        sam.mask_decoder.iou_prediction_head.layers[-1].bias.data.fill_(shift)
        (segmented,) = segmenter.segment([image], [random_detections(image.size, 2)])
        assert [one.mask_score for one in segmented.instances] == [expected, expected]


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


def test_images_without_boxes_are_not_encoded(network: SamNetwork) -> None:
    images = [random_image(size) for size in SIZES[:4]]
    found = [[], random_detections(SIZES[1], 2), [], random_detections(SIZES[3], 1)]
    watched = Watched(network)
    segmented = SamSegmenter(watched).segment(images, found)
    assert (watched.encoded, watched.decoded) == ([1, 1], [2, 1])
    assert [len(one.instances) for one in segmented] == [0, 2, 0, 1]


def test_masks_are_the_same_to_the_bit_whatever_else_is_in_the_batch(
    network: SamNetwork, segmenter: SamSegmenter
) -> None:
    images = [random_image(size, seed) for seed, size in enumerate(SIZES[:4])]
    found = [random_detections(size, 2, seed) for seed, size in enumerate(SIZES[:4])]
    whole = segmenter.segment(images, found)
    # Without the third, as if it couldn't be read, and with the first empty.
    thinned = segmenter.segment([*images[:2], images[3]], [[], found[1], found[3]])
    assert [one.instances for one in thinned] == [(), whole[1].instances, whole[3].instances]
    watched = Watched(network)
    SamSegmenter(watched).segment(images, found)
    assert watched.encoded == [1] * 4


def test_where_it_pays_images_are_encoded_together_and_every_call_has_one_shape(
    network: SamNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [random_image(size, seed) for seed, size in enumerate(SIZES[:4])]
    found = [random_detections(size, 2, seed) for seed, size in enumerate(SIZES[:4])]
    found[1] = []
    alone = SamSegmenter(network).segment(images, found)
    monkeypatch.setitem(ENCODER_IMAGES, "cpu", 2)
    watched = Watched(network)
    together = SamSegmenter(watched).segment(images, found)
    # Three images have boxes; the last call repeats one of them.
    assert watched.encoded == [2, 2]
    for one, expected in zip(together, alone, strict=True):
        for first, second in zip(one.instances, expected.instances, strict=True):
            assert first.mask is not None and second.mask is not None  # noqa: PT018
            assert np.mean(mask_from_run_length(first.mask) == mask_from_run_length(second.mask)) >= 0.9999
    SamSegmenter(watched).segment(images[:1], found[:1])
    assert watched.encoded == [2, 2, 1]


def test_no_boxes_at_all_call_no_model(network: SamNetwork) -> None:
    watched = Watched(network)
    segmenter = SamSegmenter(watched)
    assert segmenter.segment([], []) == []
    (segmented,) = segmenter.segment([random_image(SIZES[0])], [[]])
    assert (watched.encoded, watched.decoded) == ([], [])
    assert (segmented.instances, segmented.n_empty_masks) == ((), 0)


def test_a_thousand_boxes_go_in_chunks_that_change_nothing(
    network: SamNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = random_image(SIZES[0])
    found = random_detections(image.size, 7)
    whole = decoded(SamSegmenter(network), image, found)
    monkeypatch.setitem(DECODER_BYTES, "cpu", 3 * network.bytes_per_box)
    watched = Watched(network)
    chunked = decoded(SamSegmenter(watched), image, found)
    assert (watched.encoded, watched.decoded) == ([1], [3, 3, 1])
    assert np.array_equal(whole, chunked)
    SamSegmenter(watched).segment([image], [found * 143])
    assert set(watched.decoded) == {1, 2, 3}


def test_out_of_memory_halves_the_chunk_of_boxes_and_goes_on(network: SamNetwork, segmenter: SamSegmenter) -> None:
    images = [random_image(SIZES[0], seed) for seed in range(3)]
    found = [random_detections(SIZES[0], 9), random_detections(SIZES[0], 1), random_detections(SIZES[0], 2)]
    small = SmallMemory(network, n_images=1, n_boxes=2)
    segmented = SamSegmenter(small).segment(images, found)
    assert small.encoded == [1, 1, 1]
    assert small.decoded == [9, 4, 2, 2, 2, 2, 1, 1, 2]
    for one, expected in zip(segmented, segmenter.segment(images, found), strict=True):
        assert [instance.mask for instance in one.instances] == [instance.mask for instance in expected.instances]


@pytest.mark.parametrize(("n_images", "n_boxes"), [(0, 1), (1, 0)])
def test_no_memory_even_for_one_says_what_to_do(network: SamNetwork, n_images: int, n_boxes: int) -> None:
    small = SamSegmenter(SmallMemory(network, n_images, n_boxes))
    with pytest.raises(DeviceError, match=r"^Out of memory while segmenting 1 images\. Lower --batch-size"):
        small.segment([random_image(SIZES[0])], [random_detections(SIZES[0], 2)])


def test_empty_and_small_masks_are_dropped_and_counted(network: SamNetwork) -> None:
    image = random_image(ImageSize(128, 128))
    found = random_detections(image.size, 3)
    logits = torch.full((3, 64, 64), -1.0)
    logits[1, 5, 7] = 3
    logits[2, 10:, 10:] = 1
    (segmented,) = SamSegmenter(FixedLogits(network, logits)).segment([image], [found])
    assert segmented.n_empty_masks == 1
    assert [one.detection for one in segmented.instances] == found[1:]
    small, large = (mask_from_run_length(one.mask) for one in segmented.instances if one.mask is not None)
    # Just the cell's own pixels: a quarter of 3 is not enough against its neighbours.
    assert np.argwhere(small).tolist() == [[10, 14], [10, 15], [11, 14], [11, 15]]
    assert large[20:, 20:].all()
    settings = SegmentSettings(min_area=5)
    (segmented,) = SamSegmenter(FixedLogits(network, logits), settings).segment([image], [found])
    assert segmented.n_empty_masks == 2
    assert [one.detection for one in segmented.instances] == found[2:]


def test_the_best_of_three_masks_is_the_official_one(sam: Sam, network: SamNetwork) -> None:
    image = random_image(SIZES[0])
    found = random_detections(image.size, 5)
    masks, ious = official_masks(sam, image, found, multimask=True)
    (segmented,) = SamSegmenter(network, SegmentSettings(multimask=True)).segment([image], [found])
    best = ious.argmax(axis=1)
    assert len(set(best.tolist())) > 1
    for one, three, three_ious, place in zip(segmented.instances, masks, ious, best, strict=True):
        assert one.mask is not None
        assert np.mean(mask_from_run_length(one.mask) == three[place]) >= 0.9999
        assert one.mask_score == pytest.approx(min(max(float(three_ious[place]), 0), 1), abs=1e-3)


def test_options_clean_mark_and_drop_repeated_masks(network: SamNetwork) -> None:
    image = random_image(ImageSize(128, 128))
    logits = torch.full((3, 64, 64), -1.0)
    logits[0, 10:20, 10:20] = 1
    logits[0, 14:16, 14:16] = -1
    logits[0, 40:43, 40:43] = 1
    logits[1, 10:20, 10:21] = 1
    logits[2, 10:20, 10:21] = 1
    boxes = [(20.0, 20.0, 40.0, 40.0), (20.0, 20.0, 30.0, 40.0), (20.0, 20.0, 42.0, 40.0)]
    found = [
        Detection(label="car", prompt=prompt, box_xyxy=box, score=score)
        for prompt, box, score in zip(("car", "car", "dog"), boxes, (0.5, 0.9, 0.1), strict=True)
    ]
    (plain,) = SamSegmenter(FixedLogits(network, logits)).segment([image], [found])
    assert [area_px(one.mask) for one in plain.instances if one.mask is not None] == [420, 440, 440]
    assert [one.leaves_box for one in plain.instances] == [False, True, False]
    settings = SegmentSettings(clean=True, mask_iou_threshold=0.8)
    (chosen,) = SamSegmenter(FixedLogits(network, logits), settings).segment([image], [found])
    # Cleaned, the first has an IoU of 10 / 11 with the second, which is the better one; the dog is another prompt's.
    assert [one.detection for one in chosen.instances] == found[1:]


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
def test_impossible_boxes_are_refused_before_any_work(network: SamNetwork, box_xyxy: BoxXyxy, message: str) -> None:
    boxes = [detection((1.0, 1.0, 9.0, 9.0)), detection(box_xyxy)]
    watched = Watched(network)
    with pytest.raises(ValueError, match=message):
        SamSegmenter(watched).segment([random_image(SIZES[0])], [boxes])
    assert watched.encoded == []


def test_detections_for_another_number_of_images_are_refused(segmenter: SamSegmenter) -> None:
    with pytest.raises(ValueError, match="1 images, but detections for 2"):
        segmenter.segment([random_image(SIZES[0])], [[], []])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same_masks(segmenter: SamSegmenter, dtype: torch.dtype) -> None:
    image = random_image(SIZES[0])
    found = random_detections(image.size, 4)
    half = SamSegmenter(SamNetwork(random_sam(), device=CPU, dtype=dtype))
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
