"""`GroundedSegmenter`: what Python callers use; a thin face before the engine."""

import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Never, TypeVar, Unpack, cast

from grounded_seg.detect.prompts import Prompts, PromptSet, prompt_set_from
from grounded_seg.engine.batches import BatchProcessor, ReadImage, batches, read_request
from grounded_seg.engine.keywords import StageKeywords, TorchDevice, TorchDtype, refuse_unknown, run_settings_from
from grounded_seg.engine.request import Request
from grounded_seg.errors import UsageError
from grounded_seg.images.find import find_images
from grounded_seg.images.given import Given, PathPattern, given_from
from grounded_seg.images.in_memory import ImageLike, image_from, image_or_skip, is_one_image, is_path, location_of
from grounded_seg.images.remote.addresses import AddressPattern, Braces
from grounded_seg.images.tars import is_tar
from grounded_seg.pipeline.chain import Chain, Detector, Segmenter
from grounded_seg.pipeline.load import FoundModels, find_models, load_chain
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Address, Detection, Image, ImageResult, ImageSkipped, Location, TarMember
from grounded_seg.settings import DetectSettings, ModelSettings, Precision, RunSettings, SegmentSettings, TileSettings

_PRESET_PARAMETERS = (
    "adapter",
    "allow_base_mismatch",
    "boxes_only",
    "calibration",
    "detect",
    "detector",
    "device",
    "dtype",
    "offline",
    "segment",
    "segmenter",
    "tiles",
)

_LOADED_SETTINGS = {*StageKeywords.__annotations__, *_PRESET_PARAMETERS} - {"score_threshold"}
_CALL_SETTINGS = ("score_threshold",)


class GroundedSegmenter:
    """Finds what a prompt names: boxes by the detector, a mask in each box by the segmenter."""

    def __init__(
        self,
        detector: Detector,
        segmenter: Segmenter | None = None,
        *,
        tiles: TileSettings | None = None,
        detect: DetectSettings = DetectSettings(),  # noqa: B008  (frozen, so one for all calls is safe)
    ) -> None:
        """Put two models together.

        Args:
            detector: Turns prompts into boxes.
            segmenter: Turns boxes into masks; None to stop at the boxes.
            tiles: Look at images larger than a tile in tiles, too; None to look at whole images only.
            detect: How duplicates are removed where the instances of several tiles are merged, and the score threshold
                where prompts have rules but no threshold of their own.
        """
        self._chain = Chain(detector, segmenter, tiles=tiles, detect=detect)
        self.loaded: FoundModels | None = None
        """Exactly which weights run, and where; None for models that were put together by hand."""

    @classmethod
    def from_preset(
        cls,
        name: str,
        *,
        detector: str | None = None,
        adapter: str | None = None,
        segmenter: str | None = None,
        device: str | TorchDevice = "auto",
        dtype: Precision | str | TorchDtype = Precision.AUTO,
        offline: bool = False,
        allow_base_mismatch: bool = False,
        calibration: Path | str | None = None,
        detect: DetectSettings = DetectSettings(),  # noqa: B008
        segment: SegmentSettings = SegmentSettings(),  # noqa: B008
        tiles: TileSettings | None = None,
        boxes_only: bool = False,
        **settings: Unpack[StageKeywords],
    ) -> "GroundedSegmenter":
        """Load a preset: "demo" comes with the project; "fast", "base", "base-ft", "large", "large-ft" are fetched.

        Args:
            name: The preset.
            detector: Folder or hub id of a Florence-2 instead of the preset's, native or in the older layout. A hub id
                is owner/name, or owner/name@COMMIT.
            adapter: Folder or hub id of a peft adapter instead of the preset's; "none" for none.
            segmenter: A segmenter instead of the preset's: vit_b, vit_l or vit_h for a published Segment Anything, a
                file or folder of one, or folder or hub id of a SAM, SAM-HQ or SAM 2.
            device: auto, cpu, cuda, cuda:N or mps; or a torch.device.
            dtype: auto, float32, bfloat16 or float16; or such a dtype of torch.
            offline: Use only what is on disk already.
            allow_base_mismatch: Load an adapter although its record names another base, and a calibration that was
                made with other weights.
            calibration: File of `calibrate`: scores become probabilities, and thresholds are such.
            detect: How the detector is asked, and which of its boxes are kept.
            segment: Which masks are taken, and what is done to them.
            tiles: Look at images larger than a tile in tiles, too.
            boxes_only: Load no segmenter and give no masks.
            settings: Single settings of the three records before, named as the options of `run`: `score_threshold=0.3`,
                `nms="none"`, `clean=True`, `tile=640`. They replace those of the records.

        Raises:
            UsageError: If there is no such preset, device, dtype or setting.
            WeightsError: If weights are missing or wrong.
            DeviceError: If the device isn't there or can't run this.
        """
        refuse_unknown(settings, (*_CALL_SETTINGS, *_LOADED_SETTINGS))
        # The settings convert a text, and what torch has, themselves.
        where = (cast(str, device), cast(Precision, dtype), offline, allow_base_mismatch, cast(Path, calibration))
        models = ModelSettings(name, detector, adapter, segmenter, *where)
        asked = run_settings_from(settings, RunSettings(models=models, detect=detect, segment=segment, tiles=tiles))
        compiled = asked.detect.compile or asked.segment.compile
        found = find_models(asked.models, boxes_only=boxes_only, compiled=compiled)
        loaded = cls.__new__(cls)
        stages = (asked.detect, asked.segment, asked.tiles)
        loaded._chain = load_chain(found, *stages, allow_base_mismatch=allow_base_mismatch)
        loaded.loaded = found
        return loaded

    def __call__(
        self, image: ImageLike, prompts: Prompts, *, score_threshold: float | None = None, **unknown: Never
    ) -> PromptedResult:
        """Look at one image.

        Args:
            image: A path, the bytes of an image file, a Pillow image, an array or torch tensor of uint8, or an `Image`;
                see `ImageLike`. Text is a path.
            prompts: What to look for: "red car; dog", a list of prompts, or a mapping of prompts to classes, or to what
                may stand under a prompt in a file of classes.
            score_threshold: Drop boxes below this score, instead of what was chosen when the models were loaded.
            unknown: None; a setting that isn't here is told with those that are.

        Raises:
            UsageError: If nothing is asked for, or the image is none of these, or there is no such setting.
            ImageError: If the image can't be read.
        """
        _refuse_in_call(unknown, _CALL_SETTINGS)
        [result] = self._results([image], prompts, score_threshold, ["image"])
        return result

    def batch(
        self, images: Iterable[ImageLike], prompts: Prompts, *, score_threshold: float | None = None, **unknown: Never
    ) -> list[PromptedResult]:
        """Look at some images at once. No images in, no results out.

        Arguments and errors are those of a call with one image.

        Raises:
            DeviceMemoryError: If that is too much for the device's memory.
        """
        _refuse_in_call(unknown, _CALL_SETTINGS)
        given = [images] if is_one_image(images) else list(images)
        names = [f"image-{number}" for number in range(1, len(given) + 1)]
        return self._results(given, prompts, score_threshold, names)

    def segment_boxes(
        self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]
    ) -> Sequence[ImageResult]:
        """Turn given boxes, in pixels of each image, into masks, without the detector."""
        return self._chain.segment(images, detections)

    def stream(
        self,
        paths: Path | str | Iterable[ImageLike],
        prompts: Prompts,
        batch_size: int = 1,
        *,
        score_threshold: float | None = None,
        recursive: bool = True,
        **unknown: Never,
    ) -> Iterator[PromptedResult | ImageSkipped]:
        """Look at many images, one outcome for each in their order; one that can't be read is skipped.

        Args:
            paths: A folder, a pattern such as "photos/*.png", an image, or "@FILE" for a list of paths: the images that
                `run` would find, in its order. Or images, folders and patterns one by one, as many as you like; a batch
                is taken only when it is needed.
            prompts: What is asked about each.
            batch_size: Images that go through the models together. Short batches, and those in which some can't be
                read, are padded with a repeated image, so that the numbers don't depend on that.
            score_threshold: As for a call.
            recursive: Look for images in sub-folders too.
            unknown: As for a call.

        Raises:
            UsageError: If nothing is asked for, or there is no such setting.
            InputError: If there is no image at all.
        """
        _refuse_in_call(unknown, (*_CALL_SETTINGS, "batch_size", "recursive"))
        prompt_set, chain = prompt_set_from(prompts), self._chain_for(score_threshold)
        images: Iterable[ImageLike]
        if is_path(paths):
            images = _found(given_from(paths) if isinstance(paths, str) else Path(paths), recursive)
        elif is_one_image(paths):
            images = [paths]
        else:
            images = _each(cast(Iterable[ImageLike], paths), recursive)
        return _outcomes(BatchProcessor(chain, batch_size), batches(enumerate(images), batch_size, _tar_of), prompt_set)

    def _results(
        self, images: Sequence[ImageLike], prompts: Prompts, score_threshold: float | None, names: Sequence[str]
    ) -> list[PromptedResult]:
        prompt_set, chain = prompt_set_from(prompts), self._chain_for(score_threshold)
        decoded = [image_from(image, name) for image, name in zip(images, names, strict=True)]
        results = chain.results(decoded, [prompt_set] * len(decoded))
        return [_with_image(*one) for one in zip(results, images, decoded, strict=True)]

    def _chain_for(self, score_threshold: float | None) -> Chain:
        return self._chain if score_threshold is None else self._chain.with_score_threshold(score_threshold)

    def __repr__(self) -> str:
        """Say which weights run, where, and in which dtype."""
        if self.loaded is None:
            return f"GroundedSegmenter({self._chain})"
        parts = {name: getattr(self.loaded, name) for name in ("detector", "adapter", "segmenter")}
        named = [f"{name}={part.name!r}" for name, part in parts.items() if part is not None]
        return f"GroundedSegmenter({', '.join(named)}, device={self.loaded.device!r}, dtype={self.loaded.dtype!r})"


def _refuse_in_call(names: Collection[str], known: Collection[str]) -> None:
    """Refuse settings that a call doesn't have; of those of `from_preset`, say that."""
    refuse_unknown([name for name in names if name not in _LOADED_SETTINGS], known)
    if names:
        raise UsageError(f"the models are loaded with their {', '.join(names)}; give that to from_preset instead")


def _found(given: Given, recursive: bool) -> Iterator[Location]:
    """Find the images now, and give where each is one by one."""
    found = find_images([given], recursive)
    return (found.location(index) for index in range(len(found.file_names)))


def _each(images: Iterable[ImageLike], recursive: bool) -> Iterator[ImageLike]:
    """Give images one by one, those of folders and patterns among them in the order of their names."""
    for one in images:
        # A file that is named so is no list here: names come from the system as often as from a person.
        named = given_from(one) if isinstance(one, str) and not one.startswith("@") else one
        if isinstance(named, PathPattern | AddressPattern | Braces) or (
            isinstance(named, Address) and (named.url.endswith("/") or is_tar(str(named)))
        ):
            yield from _found(named, recursive)
        elif is_path(named) and (os.path.isdir(named) or is_tar(str(named))):
            yield from _found(Path(named), recursive)
        else:
            yield one


def _tar_of(numbered: tuple[int, ImageLike]) -> str:
    """The tar that an image of a stream is in; a batch never has images of two."""
    _, given = numbered
    return str(given.tar) if isinstance(given, TarMember) else ""


def _outcomes(
    processor: BatchProcessor, all_batches: Iterable[Sequence[tuple[int, ImageLike]]], prompts: PromptSet
) -> Iterator[PromptedResult | ImageSkipped]:
    for batch in all_batches:
        processed = processor.process([_read(index, given, prompts) for index, given in batch])
        for one, (_, given) in zip(processed, batch, strict=True):
            yield one.result if one.image is None else _with_image(one.result, given, one.image)


def _read(index: int, given: ImageLike, prompts: PromptSet) -> ReadImage:
    """Read an image of a stream, or say why that can't be."""
    name = f"image-{index + 1}"
    if (location := location_of(given)) is not None:
        return read_request(Request(index, str(given), location, prompts))
    started = time.perf_counter()
    request = Request(index, name, Path(name), prompts)
    return ReadImage(request, image_or_skip(given, name), time.perf_counter() - started)


_Outcome = TypeVar("_Outcome", PromptedResult, PromptedResult | ImageSkipped)


def _with_image(result: _Outcome, given: ImageLike, image: Image) -> _Outcome:
    """Keep an image that was given in memory; one on disk can be read again."""
    return result if location_of(given) or isinstance(result, ImageSkipped) else replace(result, image=image)
