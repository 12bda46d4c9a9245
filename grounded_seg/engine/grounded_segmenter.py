"""`GroundedSegmenter`: what Python callers use; a thin face before the engine."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

from grounded_seg.detect.prompts import Prompts, prompt_set_from
from grounded_seg.engine.batches import BatchProcessor, batches, read_request
from grounded_seg.engine.request import Request
from grounded_seg.images.read import read_image
from grounded_seg.pipeline.chain import Chain, Detector, Segmenter
from grounded_seg.pipeline.load import FoundModels, find_models, load_chain
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Detection, Image, ImageResult, ImageSkipped
from grounded_seg.settings import DetectSettings, ModelSettings, Precision, SegmentSettings, TileSettings


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
            detect: How duplicates are removed where the instances of several tiles are merged.
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
        device: str = "auto",
        dtype: Precision | str = Precision.AUTO,
        offline: bool = False,
        detect: DetectSettings = DetectSettings(),  # noqa: B008
        segment: SegmentSettings = SegmentSettings(),  # noqa: B008
        tiles: TileSettings | None = None,
        boxes_only: bool = False,
    ) -> "GroundedSegmenter":
        """Load a preset: "demo" comes with the project, "base", "base-ft", "large" and "large-ft" are fetched once.

        Args:
            name: The preset.
            detector: Folder or hub id of a Florence-2 instead of the preset's, native or in the older layout. A hub id
                is owner/name, or owner/name@COMMIT.
            adapter: Folder or hub id of a peft adapter instead of the preset's; "none" for none.
            segmenter: A segmenter instead of the preset's: vit_b, vit_l or vit_h for a published Segment Anything, a
                file or folder of one, or folder or hub id of a SAM, SAM-HQ or SAM 2.
            device: auto, cpu, cuda, cuda:N or mps.
            dtype: auto, float32, bfloat16 or float16.
            offline: Use only what is on disk already.
            detect: How the detector is asked, and which of its boxes are kept.
            segment: Which masks are taken, and what is done to them.
            tiles: Look at images larger than a tile in tiles, too.
            boxes_only: Load no segmenter and give no masks.

        Raises:
            UsageError: If there is no such preset, device or dtype.
            WeightsError: If weights are missing or wrong.
            DeviceError: If the device isn't there or can't run this.
        """
        # The settings convert a text themselves.
        models = ModelSettings(name, detector, adapter, segmenter, device, cast(Precision, dtype), offline)
        found = find_models(models, boxes_only=boxes_only)
        loaded = cls.__new__(cls)
        loaded._chain, loaded.loaded = load_chain(found, detect, segment, tiles), found
        return loaded

    def __call__(self, image: Image | Path | str, prompts: Prompts) -> PromptedResult:
        """Look at one image, decoded or on disk.

        Raises:
            UsageError: If nothing is asked for.
            ImageError: If the image can't be read.
        """
        [result] = self.batch([image], prompts)
        return result

    def batch(self, images: Sequence[Image | Path | str], prompts: Prompts) -> list[PromptedResult]:
        """Look at some images at once, decoded or on disk. No images in, no results out.

        Raises:
            UsageError: If nothing is asked for.
            ImageError: If an image can't be read.
            DeviceMemoryError: If that is too much for the device's memory.
        """
        prompt_set = prompt_set_from(prompts)
        decoded = [image if isinstance(image, Image) else read_image(Path(image)) for image in images]
        return self._chain.results(decoded, [prompt_set] * len(decoded))

    def segment_boxes(
        self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]
    ) -> Sequence[ImageResult]:
        """Turn given boxes, in pixels of each image, into masks, without the detector."""
        return self._chain.segment(images, detections)

    def stream(
        self, paths: Iterable[Path | str], prompts: Prompts, batch_size: int = 1
    ) -> Iterator[PromptedResult | ImageSkipped]:
        """Look at many images, one outcome for each in their order; one that can't be read is skipped.

        Args:
            paths: Image files; as many as you like, a batch is taken only when it is needed.
            prompts: What is asked about each.
            batch_size: Images that go through the models together. Short batches, and those in which some can't be
                read, are padded with a repeated image, so that the numbers don't depend on that.

        Raises:
            UsageError: If nothing is asked for.
        """
        prompt_set = prompt_set_from(prompts)
        processor = BatchProcessor(self._chain, batch_size)
        requests = (Request(index, str(path), Path(path), prompt_set) for index, path in enumerate(paths))
        for batch in batches(requests, batch_size):
            for processed in processor.process([read_request(one) for one in batch]):
                yield processed.result
