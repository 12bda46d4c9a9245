"""Settings of a training as one frozen record, each with unit, default and meaning; nothing here needs torch."""

from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grounded_seg.setting_types import (
    ImageSide,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ShareBelowOne,
    convert_fields,
    plain_value,
    refuse,
)
from grounded_seg.settings import MAX_PIXELS, ModelSettings, Reviewed

if TYPE_CHECKING:
    from grounded_seg.train.measure.metrics import Metric


class Method(StrEnum):
    """What is trained: a low-rank adapter (arXiv 2106.09685) beside frozen weights, or the weights themselves."""

    LORA = "lora"
    FULL = "full"


class Part(StrEnum):
    """A part of Florence-2 that can be trained or frozen."""

    LANGUAGE = "language"
    VISION = "vision"
    PROJECTOR = "projector"
    """The layer between the vision tower and the language model."""
    HEAD = "head"
    """The layer before the vocabulary: with full tuning the word embeddings too, which are the same matrix."""


class PromptForm(StrEnum):
    """How boxes are asked for: one class per question, as `run` asks, or all in one answer to `<OD>`."""

    CLASS = "class"
    OD = "od"


class OptimizerName(StrEnum):
    """The optimizer."""

    ADAMW = "adamw"
    CAME = "came"
    """arXiv 2307.02047, from pytorch-optimizer: less memory."""


class Schedule(StrEnum):
    """How the learning rate falls after the warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"
    REX = "rex"
    """arXiv 2107.04197: stays high for longer, then falls steeply."""


class Quantization(StrEnum):
    """Bits in which a frozen base is held in memory, by bitsandbytes on a GPU."""

    NONE = "none"
    INT8 = "8bit"
    NF4 = "4bit"


class Logger(StrEnum):
    """Where figures are logged beside `metrics.jsonl`."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"


ADAPTER_ONLY = ("rank", "alpha", "dropout", "rslora", "dora")
"""Settings that full tuning has no use for."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One training: the data, what is trained, and how."""

    dataset: Path
    """Folder with `train`, `valid`, `test`, or with one annotation file and its images."""
    output: Path
    models: ModelSettings = field(default_factory=ModelSettings)
    """The base and where it trains; it starts without the preset's adapter."""
    reviewed: Reviewed | None = None
    """`accepted`: the data set is the folder of a run, and what people accepted there; None for any other data set."""
    recipe: str = ""
    """Name of the recipe that the settings started from; only written down."""

    split: tuple[int, int, int] = (80, 5, 15)
    """Percent of train, valid and test where the data set has no splits of its own."""
    seed: NonNegativeInt = 0
    """Random seed of the split, the order, the negatives, dropout and the adapter's first weights."""
    prompt_form: PromptForm = PromptForm.CLASS
    negative_ratio: NonNegativeFloat = 0.5
    """Questions about absent classes for each question about a present one."""
    negatives: tuple[str, ...] = ()
    """More prompts for things that are on none of the images, asked beside the absent classes."""
    image_size: ImageSide | None = None
    """Side in pixels of the square that images are resized to first; None to leave them as they are."""
    max_pixels: PositiveInt = MAX_PIXELS
    """Width x height above which an image is refused before it is decoded."""
    augment: bool = True
    """Flip images sideways and change their colours, unless a label names sides or colours."""
    strict: bool = False
    """Stop at rows that can't be used, instead of leaving them out."""

    method: Method = Method.LORA
    parts: frozenset[Part] = frozenset({Part.LANGUAGE})
    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    """The adapter is scaled by alpha / rank; with `rslora` by alpha / sqrt(rank)."""
    dropout: ShareBelowOne = 0.05
    """Share of the adapter's inputs that a step leaves out."""
    rslora: bool = False
    dora: bool = False
    quantization: Quantization = Quantization.NONE
    gradient_checkpointing: bool = False
    """Compute activations twice to keep fewer in memory."""

    epochs: PositiveInt = 10
    max_steps: PositiveInt | None = None
    """Steps after which the training stops, whatever `epochs` says."""
    batch_size: PositiveInt = 8
    """Questions in one batch, on each device."""
    accumulation: PositiveInt = 1
    """Batches whose gradients make one step."""
    lr: PositiveFloat = 1e-4
    """Peak learning rate."""
    optimizer: OptimizerName = OptimizerName.ADAMW
    schedule: Schedule = Schedule.COSINE
    warmup_steps: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay, of matrices only."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    location_spread: NonNegativeFloat = 0.0
    """Standard deviation, in bins, over which a location's target is spread; 0 for the right bin alone."""
    cache_features: bool = True
    """Compute an image's features once and keep them, where neither a trained vision tower nor augmentation changes
    them."""
    workers: NonNegativeInt = 0
    """Processes that read images ahead."""

    eval_steps: NonNegativeInt = 0
    """Steps between two measurements of the validation loss; 0 for one after each epoch."""
    save_steps: NonNegativeInt = 0
    """Steps between two checkpoints; 0 for one after each epoch."""
    keep: PositiveInt = 3
    """Checkpoints kept, the last ones; the best adapter is kept beside them."""
    best_metric: str = ""
    """Validation figure that chooses the best adapter: AP, loss, ...; empty for AP where there are boxes, else loss."""
    patience: PositiveInt | None = None
    """Epochs without a better figure after which the training stops; None for never."""
    eval_images: PositiveInt | None = None
    """Images of the validation split that answers are generated for; None for all."""
    log_to: frozenset[Logger] = frozenset()
    report: bool = True
    """Compare base and tuned model on the test split at the end."""
    retention: Path | None = None
    """COCO file, beside its images, of what the base knew before: the report measures what is kept of it."""
    metrics: "tuple[Metric, ...]" = ()
    """More validation figures, in Python only."""

    def __post_init__(self) -> None:
        """Convert what was given, and refuse all that is wrong at once."""
        problems = convert_fields(self)
        if isinstance(self.metrics, list | tuple) and all(map(callable, self.metrics)):
            object.__setattr__(self, "metrics", tuple(self.metrics))
        else:
            problems.append("metrics isn't a list of functions; give each as `Metric` describes it")
        refuse([*problems, *_contradictions(self)])

    def option_values(self) -> dict[str, Any]:
        """All settings in plain JSON values, for `run.json` and for comparing two trainings."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("models", "metrics")}
        models = {one.name: getattr(self.models, one.name) for one in fields(self.models)}
        return {name: plain_value(value) for name, value in (own | models).items()}


def _contradictions(settings: TrainSettings) -> list[str]:
    problems = []
    if sum(settings.split) != 100 or min(settings.split) < 1:
        shown = "/".join(map(str, settings.split))
        problems.append(f"split is {shown}, it must be three percentages above 0 that sum to 100, as in 80/5/15")
    if settings.reviewed not in (None, Reviewed.ACCEPTED):
        problems.append(f"reviewed is {settings.reviewed}; only accepted instances can be learnt, it must be accepted")
    if not settings.parts:
        problems.append("parts is empty, so nothing would be trained; name language, vision, projector or head")
    if settings.method is Method.FULL:
        problems += [
            f"{name} belongs to adapters; leave it out, or use --method lora"
            for name in ADAPTER_ONLY
            if getattr(settings, name) != getattr(TrainSettings, name)
        ]
        if settings.quantization is not Quantization.NONE:
            problems.append("a quantized base can't be trained itself; use --method lora, or leave quantization out")
    if settings.negatives and settings.prompt_form is PromptForm.OD:
        problems.append("negatives are asked one at a time, and prompt-form od asks for all at once; leave one out")
    if settings.retention is not None and not settings.report:
        problems.append("retention is measured in the report, which is off; leave one out")
    return problems
