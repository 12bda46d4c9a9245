"""Settings of both stages and of a run as frozen records, each with unit, default and meaning."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from grounded_seg.errors import UsageError
from grounded_seg.setting_types import (
    MOST_SHARDS,
    CheckedSettings,
    PositiveInt,
    Share,
    TileSide,
    UpToHalf,
    convert_fields,
    refuse,
)

MAX_PIXELS = 2 * 89_478_485
"""179 megapixels, 0.5 GB as RGB: what Pillow refuses as a decompression bomb."""
_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


class GroundingTask(StrEnum):
    """The Florence-2 task that a prompt is asked with."""

    GROUNDING = "grounding"
    """CAPTION_TO_PHRASE_GROUNDING: every object the phrase names."""
    OPEN_VOCABULARY = "open-vocabulary"
    """OPEN_VOCABULARY_DETECTION: one class by name."""
    REFERRING = "referring"
    """REFERRING_EXPRESSION_SEGMENTATION: the one object meant, as an outline; its box is the outline's."""


class SuppressionScope(StrEnum):
    """The boxes among which duplicates are removed (NMS): those of one class, all, or none."""

    CLASS = "class"
    AGNOSTIC = "agnostic"
    NONE = "none"


class Precision(StrEnum):
    """Dtype of weights and activations; `auto` is the fastest that the device supports in hardware."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Drawn(StrEnum):
    """Pictures written for each image beside the annotations."""

    OVERLAY = "overlay"
    MASKS = "masks"
    CROPS = "crops"
    NONE = "none"


class OnError(StrEnum):
    """What a folder run does with an image that it can't read."""

    SKIP = "skip"
    STOP = "stop"


class EngineKind(StrEnum):
    """What executes the work: this machine, or a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


class Reviewed(StrEnum):
    """Which instances of a reviewed run are meant; a threshold holds for those that nobody decided on."""

    ACCEPTED = "accepted"
    """Accepted and relabelled ones. An image without any is there only if nothing is left to decide on it."""
    NOT_REJECTED = "not-rejected"
    """Undecided ones too, and all images."""
    UNDECIDED = "undecided"
    """Undecided ones only, and the images on which something is left to decide, or that nobody looked at."""


class ResultsForm(StrEnum):
    """The form in which a run's results are written at its end."""

    COCO = "coco"
    """annotations.json."""
    PARQUET = "parquet"
    """results.parquet and images.parquet beside it."""


@dataclass(frozen=True)
class Shard:
    """One of the parts of a list of images that are runs of their own; K/N as text."""

    number: int
    """From 1 to `count`."""
    count: int

    def __str__(self) -> str:
        """As it stands on the command line."""
        return f"{self.number}/{self.count}"

    @classmethod
    def of(cls, text: str) -> "Shard | None":
        """Read K/N; None if it isn't that, with K from 1 to N, which is at most `MOST_SHARDS`.

        >>> Shard.of("2/3"), Shard.of("0/3")
        (Shard(number=2, count=3), None)
        """
        found = _SHARD.fullmatch(text)
        shard = None if found is None else cls(int(found[1]), int(found[2]))
        return shard if shard is not None and 1 <= shard.number <= shard.count <= MOST_SHARDS else None


@dataclass(frozen=True)
class DetectSettings(CheckedSettings):
    """How the detector is asked, and which boxes are kept: those of at least `score_threshold`, without duplicates."""

    task: GroundingTask = GroundingTask.GROUNDING
    score_threshold: Share = 0.5
    nms: SuppressionScope = SuppressionScope.CLASS
    iou_threshold: Share = 0.7
    """A box that overlaps a better one by more than this IoU is a duplicate."""
    box_containment_threshold: Share = 1.0
    """A box is also a duplicate if more than this share of the smaller box lies inside the other; 1 keeps nested boxes,
    as one in forty of COCO's true boxes lies within another of its class."""
    max_detections: PositiveInt = 100
    """Boxes kept per image and prompt, best scores first."""
    beams: PositiveInt = 1
    """Beam width of the generation; 1 is greedy."""
    compile: bool = False
    """Compile the detector's vision tower with torch.compile: up to minutes before the first image, faster then."""


@dataclass(frozen=True)
class SegmentSettings(CheckedSettings):
    """Which of the segmenter's masks are taken, and how they are cleaned."""

    multimask: bool = False
    """Predict three masks a box and keep the one with the highest predicted IoU, instead of one mask."""
    clean: bool = False
    """Keep a mask's largest connected part only, and fill its holes."""
    min_area: PositiveInt = 1
    """Masks of fewer pixels are dropped and counted as empty."""
    outside_share: Share = 0.2
    """A mask with more than this share of its pixels outside its box is marked."""
    mask_iou_threshold: Share = 1.0
    """A mask that overlaps a better one of its prompt by more than this IoU is a duplicate; 1 keeps all."""
    containment_threshold: Share = 1.0
    """A mask is also a duplicate if more than this share of the smaller mask lies inside the other; 1 keeps all."""
    compile: bool = False
    """Compile the segmenter's image encoder with torch.compile."""


@dataclass(frozen=True)
class TileSettings:
    """How a large image is cut into tiles."""

    side: TileSide
    """Side of a tile in pixels of the image; "auto" for tiles of one or two sides that fit what the detector sees."""
    overlap: UpToHalf = 0.2
    """Share of a tile, at least, that its neighbour shows too; with more than half, parts of things are found often."""

    def __post_init__(self) -> None:
        refuse(convert_fields(self, {"side": "tile"}))


@dataclass(frozen=True)
class ModelSettings(CheckedSettings):
    """Which weights are loaded, and where they run."""

    preset: str = "base-ft"
    """Name of a row of `weights/presets.toml`; the next three fields replace its parts."""
    detector: str | None = None
    """Folder of a Florence-2, native or in the older layout, or its hub id: owner/name, or owner/name@COMMIT."""
    adapter: str | None = None
    """Folder or hub id of a peft adapter, written alike; "none" for no adapter."""
    segmenter: str | None = None
    """File or folder of a Segment Anything model, name of a published one, or hub id of SAM, SAM-HQ or SAM 2."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Precision = Precision.AUTO
    offline: bool = False
    allow_base_mismatch: bool = False
    """Load an adapter although its record names another base, and a calibration that was made with other weights."""
    calibration: Path | None = None
    """File of `calibrate`: scores become probabilities, and thresholds are such; None for scores as they are."""


@dataclass(frozen=True)
class RunSettings:
    """One `run`: what is asked of which images, and what is written."""

    output: Path = Path("grounded-seg-out")
    models: ModelSettings = field(default_factory=ModelSettings)
    detect: DetectSettings = field(default_factory=DetectSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    tiles: TileSettings | None = None
    """Tiles for images larger than one, beside the whole image; None for whole images only."""
    boxes_only: bool = False
    batch_size: PositiveInt = 1
    recursive: bool = True
    max_pixels: PositiveInt = MAX_PIXELS
    """Width x height above which an image is skipped before it is decoded."""
    resume: bool = False
    overwrite: bool = False
    on_error: OnError = OnError.SKIP
    save: frozenset[Drawn] = frozenset({Drawn.OVERLAY})
    """Pictures to write; NONE, alone, is the same as an empty set."""
    upload: str | None = None
    """Address of a folder that the finished run is copied to, such as s3://BUCKET/FOLDER; None for none."""
    shard: str | None = None
    """K/N for the K-th of N parts of the list of images; None for all of it."""
    results: ResultsForm = ResultsForm.COCO
    devices: tuple[str, ...] | None = None
    """Devices of this machine, a process each: cuda:0 and cuda:1, or "all" CUDA devices; also as one text with commas.
    None for `models.device` in this process."""
    engine: EngineKind = EngineKind.LOCAL
    workers: PositiveInt | None = None
    """Number of Ray workers; None for one per GPU, or one per node where there are none."""

    def __post_init__(self) -> None:
        given: object = self.devices
        if isinstance(given, str):
            object.__setattr__(self, "devices", tuple(one.strip() for one in given.split(",") if one.strip()))
        problems = [*convert_fields(self), *self._engine_problems()]
        if self.shard is not None:
            shard = Shard.of(self.shard)
            if shard is None:
                problems.append(
                    f"shard is {self.shard!r}, it must be K/N with K from 1 to N, at most 1000000, such as 2/8"
                )
            object.__setattr__(self, "shard", None if shard is None else str(shard))
        pictures = self.save - {Drawn.NONE}
        if self.resume and self.overwrite:
            problems.append("--resume keeps the results that --overwrite replaces; leave one of them out")
        if pictures and pictures != self.save:
            problems.append(f"--save none doesn't go with --save {min(pictures)}; leave one of them out")
        if self.boxes_only and Drawn.MASKS in pictures:
            problems.append("--save masks needs masks, and --boxes-only makes none; leave one of them out")
        refuse(problems)
        object.__setattr__(self, "save", pictures)

    def _engine_problems(self) -> Iterator[str]:
        device = self.models.device
        if self.devices == ():
            yield "devices is empty; name some, as in cuda:0,cuda:1"
        if self.devices and device != "auto":
            yield f"--devices replaces --device {device}; leave one of them out"
        if self.engine is EngineKind.RAY and self.devices:
            yield "--devices is for this machine; with --engine ray give the number of --workers"
        if self.engine is EngineKind.RAY and device not in ("auto", "cpu", "cuda"):
            yield f"device is {device}; with --engine ray it is auto, cpu or cuda, and Ray chooses which"
        if self.engine is EngineKind.LOCAL and self.workers is not None:
            yield "--workers is for --engine ray; name the GPUs of this machine with --devices"


def check_device_name(name: str) -> None:
    """Refuse a name that is none of auto, cpu, cuda, cuda:N and mps; whether there is such a device isn't looked at."""
    kind, _, index = name.partition(":")
    if name not in ("auto", "cpu", "cuda", "mps") and not (kind == "cuda" and index.isdecimal()):
        raise UsageError(f"unknown device {name!r}; {_advice(name)}give auto, cpu, cuda, cuda:N or mps")


def _advice(name: str) -> str:
    """What was probably meant by the name of a device as other tools have it."""
    first = re.fullmatch(r"(?:cuda|gpu)?[:\s]*(\d+)(,[\s\d,]*)?", name.lower())
    if first is not None:
        cards = ",".join(f"cuda:{index}" for index in re.findall(r"\d+", name))
        more = f"; run and eval take several with --devices {cards}" if first[2] else ""
        return f"write cuda:{first[1]}{more}; "
    return "write cuda on a machine with an NVIDIA card, mps on a Mac; " if name.lower() in ("gpu", "nvidia") else ""
