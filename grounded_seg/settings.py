"""Options as frozen records: one sentence, a unit and a default for each. The command line builds these and no more."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from grounded_seg.errors import UsageError

MAX_PIXELS = 2 * 89_478_485
"""179 megapixels: what Pillow itself takes for a decompression bomb, and 0.5 GB as RGB."""


class GroundingTask(StrEnum):
    """Which of Florence-2's tasks a prompt is asked through."""

    GROUNDING = "grounding"
    """CAPTION_TO_PHRASE_GROUNDING: every object the phrase names."""
    OPEN_VOCABULARY = "open-vocabulary"
    """OPEN_VOCABULARY_DETECTION: one class by name."""
    REFERRING = "referring"
    """REFERRING_EXPRESSION_SEGMENTATION: the one object meant, outlined; its box is the outline's."""


class SuppressionScope(StrEnum):
    """Between which boxes duplicates are looked for."""

    CLASS = "class"
    AGNOSTIC = "agnostic"
    NONE = "none"


class Precision(StrEnum):
    """Number format of weights and activations; `auto` takes the fastest that the device really has."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"

    @classmethod
    def named(cls, name: str) -> "Precision":
        """Find a format by its name.

        Raises:
            UsageError: If there is none.
        """
        try:
            return cls(name)
        except ValueError as error:
            raise UsageError(f"Unknown dtype {name!r}: give one of {', '.join(cls)}.") from error


class Drawn(StrEnum):
    """What is written per image beside the annotations."""

    OVERLAY = "overlay"
    MASKS = "masks"
    CROPS = "crops"
    NONE = "none"


class OnError(StrEnum):
    """What a folder run does at an image it can't read."""

    SKIP = "skip"
    STOP = "stop"


@dataclass(frozen=True)
class DetectSettings:
    """How the detector is asked and which of its boxes are kept."""

    task: GroundingTask = GroundingTask.GROUNDING
    score_threshold: float = 0.5
    """Boxes below this score are dropped, in [0, 1]."""
    nms: SuppressionScope = SuppressionScope.CLASS
    iou_threshold: float = 0.7
    """A box that overlaps a better one by more than this IoU is a duplicate, in [0, 1]."""
    box_containment_threshold: float = 1.0
    """Likewise for the share of the smaller box that lies within the other; 1 keeps nested boxes, as one in forty of
    COCO's true boxes lies within another of its class."""
    max_detections: int = 100
    """Boxes kept per image and prompt, the best by score."""
    beams: int = 1
    """Beam width of the generation; 1 is greedy."""
    compile: bool = False
    """Send the detector's vision tower through torch.compile: up to minutes before the first image, faster then."""

    def __post_init__(self) -> None:
        """Refuse values out of range, all of them at once."""
        problems = [
            f"{name} is {value:g}, it has to be within 0 and 1"
            for name, value in (
                ("score-threshold", self.score_threshold),
                ("iou-threshold", self.iou_threshold),
                ("box-containment-threshold", self.box_containment_threshold),
            )
            if not 0 <= value <= 1
        ]
        problems += [
            f"{name} is {value}, it has to be at least 1"
            for name, value in (("max-detections", self.max_detections), ("beams", self.beams))
            if value < 1
        ]
        if problems:
            raise UsageError("; ".join(problems))


@dataclass(frozen=True)
class SegmentSettings:
    """Which of the segmenter's masks are taken, and what is done to them."""

    multimask: bool = False
    """Ask for three masks a box and take the one with the best predicted IoU, instead of the one for clear cases."""
    clean: bool = False
    """Keep a mask's largest connected part only, and fill its holes."""
    min_area: int = 1
    """Masks of fewer pixels are dropped and counted as empty."""
    outside_share: float = 0.2
    """A mask with more than this share of its pixels outside its box is marked, in [0, 1]."""
    mask_iou_threshold: float = 1.0
    """A mask that overlaps a better one of its prompt by more than this IoU is a duplicate, in [0, 1]; 1 keeps all."""
    containment_threshold: float = 1.0
    """Likewise for the share of the smaller mask that lies within the other; 1 keeps nested masks."""
    compile: bool = False
    """Send the segmenter's image encoder through torch.compile: up to minutes before the first image, faster then."""

    def __post_init__(self) -> None:
        """Refuse values out of range, all of them at once."""
        problems = [
            f"{name} is {value:g}, it has to be within 0 and 1"
            for name, value in (
                ("outside-share", self.outside_share),
                ("mask-iou-threshold", self.mask_iou_threshold),
                ("containment-threshold", self.containment_threshold),
            )
            if not 0 <= value <= 1
        ]
        if self.min_area < 1:
            problems.append(f"min-area is {self.min_area}, it has to be at least 1")
        if problems:
            raise UsageError("; ".join(problems))


@dataclass(frozen=True)
class TileSettings:
    """How a large image is cut into tiles."""

    side: int
    """Side of a tile in pixels of the image."""
    overlap: float = 0.2
    """Share of a tile that its neighbour shows too, at least, in [0, 1)."""

    def __post_init__(self) -> None:
        """Refuse values out of range, all of them at once."""
        problems = []
        if self.side < 1:
            problems.append(f"tile is {self.side}, it has to be at least 1")
        if not 0 <= self.overlap < 1:
            problems.append(f"overlap is {self.overlap:g}, it has to be at least 0 and below 1")
        if problems:
            raise UsageError("; ".join(problems))


@dataclass(frozen=True)
class ModelSettings:
    """Which weights are loaded, and where they run."""

    preset: str = "base-ft"
    """Name of a row of `weights/presets.toml`; the next three fields replace its parts."""
    detector: str | None = None
    """Folder of a Florence-2, native or in the older layout, or its hub id: owner/name, or owner/name@COMMIT."""
    adapter: str | None = None
    """Folder or hub id of a peft adapter, likewise; "none" switches the preset's off."""
    segmenter: str | None = None
    """File or folder of a Segment Anything model, name of a published one, or hub id of SAM, SAM-HQ or SAM 2."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Precision = Precision.AUTO
    offline: bool = False
    """Use only what is on disk already."""
    allow_base_mismatch: bool = False
    """Load an adapter although it says that it was trained on another base."""


@dataclass(frozen=True)
class RunSettings:
    """One `run`: what is asked of which images, and what is written."""

    output: Path = Path("grounded-seg-out")
    models: ModelSettings = field(default_factory=ModelSettings)
    detect: DetectSettings = field(default_factory=DetectSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    tiles: TileSettings | None = None
    """Look at images larger than a tile in tiles, too; None for whole images only."""
    boxes_only: bool = False
    """Stop after the detector: no masks."""
    batch_size: int = 1
    """Images that go through the models together."""
    recursive: bool = True
    max_pixels: int = MAX_PIXELS
    """Width x height above which an image is skipped before it is decoded."""
    resume: bool = False
    """Go on where an earlier run into `output` was cut off."""
    overwrite: bool = False
    """Replace the results of an earlier run in `output`."""
    on_error: OnError = OnError.SKIP
    save: frozenset[Drawn] = frozenset({Drawn.OVERLAY})

    def __post_init__(self) -> None:
        """Refuse values out of range or that don't go together, all of them at once."""
        problems = [
            f"{name} is {value}, it has to be at least 1"
            for name, value in (("batch-size", self.batch_size), ("max-pixels", self.max_pixels))
            if value < 1
        ]
        if self.resume and self.overwrite:
            problems.append("--resume keeps what --overwrite takes away; leave one of them out")
        if problems:
            raise UsageError("; ".join(problems))
