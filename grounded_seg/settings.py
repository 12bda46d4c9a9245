"""Options as frozen records: one sentence, a unit and a default for each. The command line builds these and no more."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from grounded_seg.errors import UsageError


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
    score_threshold: float = 0.3
    """Boxes below this score are dropped, in [0, 1]."""
    nms: SuppressionScope = SuppressionScope.CLASS
    iou_threshold: float = 0.7
    """A box that overlaps a better one by more than this IoU is a duplicate, in [0, 1]."""
    max_detections: int = 100
    """Boxes kept per image and prompt, the best by score."""
    beams: int = 1
    """Beam width of the generation; 1 is greedy."""

    def __post_init__(self) -> None:
        """Refuse values out of range, all of them at once."""
        problems = [
            f"{name} is {value:g}, it has to be within 0 and 1"
            for name, value in (("score-threshold", self.score_threshold), ("iou-threshold", self.iou_threshold))
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
class ModelSettings:
    """Which weights are loaded, and where they run."""

    preset: str = "base-ft"
    """Name of a row of `weights/presets.toml`; the next three fields replace its parts."""
    detector: str | None = None
    """Folder or hub id of a native Florence-2."""
    adapter: str | None = None
    """Folder or hub id of a peft adapter; "none" switches the preset's off."""
    segmenter: str | None = None
    """File or folder of a Segment Anything model."""
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

    output: Path
    models: ModelSettings = field(default_factory=ModelSettings)
    detect: DetectSettings = field(default_factory=DetectSettings)
    boxes_only: bool = False
    """Stop after the detector: no masks."""
    batch_size: int = 1
    """Images that go through the models together."""
    recursive: bool = True
    overwrite: bool = False
    """Replace the results of an earlier run in `output`."""
    on_error: OnError = OnError.SKIP
    save: frozenset[Drawn] = frozenset({Drawn.OVERLAY})

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.batch_size < 1:
            raise UsageError(f"batch-size is {self.batch_size}, it has to be at least 1")

