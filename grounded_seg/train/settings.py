"""The options of a training, each with unit, default and meaning; nothing here needs torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grounded_seg.errors import UsageError
from grounded_seg.settings import MAX_PIXELS, ModelSettings
from grounded_seg.train.setting_types import problems_of

if TYPE_CHECKING:
    from grounded_seg.train.measure.metrics import Metric


class Method(StrEnum):
    """What learns."""

    LORA = "lora"
    """A low-rank adapter (arXiv 2106.09685) beside frozen weights."""
    FULL = "full"
    """The weights themselves."""


class Part(StrEnum):
    """A part of Florence-2 that can be trained or left as it is."""

    LANGUAGE = "language"
    """Encoder and decoder of the text."""
    VISION = "vision"
    """The tower that looks at the image."""
    PROJECTOR = "projector"
    """The layer that turns what was seen into tokens."""
    HEAD = "head"
    """What turns states into words: with full tuning the word embeddings too, which are the same matrix."""


class PromptForm(StrEnum):
    """How boxes are asked for."""

    CLASS = "class"
    """One class per question, as `run` asks."""
    OD = "od"
    """All classes in one answer to `<OD>`."""


class OptimizerName(StrEnum):
    """What turns gradients into steps."""

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
    """How a frozen base is kept in memory, by bitsandbytes on a GPU."""

    NONE = "none"
    INT8 = "8bit"
    NF4 = "4bit"


class Logger(StrEnum):
    """Where figures go beside `metrics.jsonl`."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"


ADAPTER_ONLY = ("rank", "alpha", "dropout", "rslora", "dora")
"""Settings that full tuning has no use for."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One training: what is learnt from, what is trained, and how."""

    dataset: Path
    """Folder with `train`, `valid`, `test`, or with one annotation file and its images."""
    output: Path
    """Folder of the run."""
    models: ModelSettings = field(default_factory=ModelSettings)
    """The base and where it trains. The preset's adapter isn't used: training starts from the bare base."""
    recipe: str = ""
    """Name of the recipe that the settings started from; only written down."""

    split: tuple[int, int, int] = (80, 5, 15)
    """Percent of train, valid and test where the data set has no splits of its own."""
    seed: int = 0
    """Of the split, the order, the negatives, dropout and the adapter's first weights."""
    prompt_form: PromptForm = PromptForm.CLASS
    negative_ratio: float = 0.5
    """Questions about classes that aren't on the image, for each one about a class that is."""
    negatives: tuple[str, ...] = ()
    """More prompts for things that are on none of the images, to ask about beside the absent classes."""
    image_size: int | None = None
    """Images are first squeezed to this square, in pixels; None to leave them as they are."""
    max_pixels: int = MAX_PIXELS
    """Width x height above which an image is refused."""
    augment: bool = True
    """Flip images sideways and change their colours, unless a label speaks of sides or colours."""
    strict: bool = False
    """Stop at rows that can't be used, instead of leaving them out."""

    method: Method = Method.LORA
    parts: frozenset[Part] = frozenset({Part.LANGUAGE})
    rank: int = 16
    """Of the adapter's matrices."""
    alpha: float = 32.0
    """The adapter counts alpha / rank times; with `rslora` alpha / sqrt(rank)."""
    dropout: float = 0.05
    """Share of the adapter's inputs that a step leaves out."""
    rslora: bool = False
    dora: bool = False
    quantization: Quantization = Quantization.NONE
    gradient_checkpointing: bool = False
    """Compute activations twice to keep fewer in memory."""

    epochs: int = 10
    max_steps: int | None = None
    """Stop after so many steps, whatever `epochs` says."""
    batch_size: int = 8
    """Questions in one pass, on each device."""
    accumulation: int = 1
    """Passes that make one step."""
    lr: float = 1e-4
    """Highest learning rate."""
    optimizer: OptimizerName = OptimizerName.ADAMW
    schedule: Schedule = Schedule.COSINE
    warmup_steps: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    """Gradients longer than this are shortened to it."""
    location_spread: float = 0.0
    """Standard deviation, in bins, over which a location's target is spread; 0 for the right bin alone."""
    workers: int = 0
    """Processes that read images ahead."""

    eval_steps: int = 0
    """Steps between two looks at the validation loss; 0 for one after each epoch."""
    save_steps: int = 0
    """Steps between two checkpoints; 0 for one after each epoch."""
    keep: int = 3
    """Checkpoints kept, the last ones; the best adapter is kept beside them."""
    best_metric: str = ""
    """Figure of the validation by which the best adapter is chosen: AP, loss, ...; empty for AP where there are boxes,
    else loss."""
    patience: int | None = None
    """Stop after so many epochs without a better figure; None for never."""
    eval_images: int | None = None
    """Images of the validation split that answers are generated for; None for all."""
    log_to: frozenset[Logger] = frozenset()
    report: bool = True
    """Compare base and tuned on the test split when all is done."""
    retention: Path | None = None
    """COCO file, beside its images, of what the base knew before: the report measures what is left of it."""
    metrics: "tuple[Metric, ...]" = ()
    """More figures of the validation, in Python only."""

    def __post_init__(self) -> None:
        """Take texts for choices and paths; refuse what is of another type, out of range or doesn't go together."""
        kinds = {one.name: one.type for one in fields(self) if one.name != "metrics"}
        good, problems = problems_of({name: getattr(self, name) for name in kinds}, kinds)
        for name in kinds:
            # What is of no use is its default while the others are looked at, so that all is said at once.
            object.__setattr__(self, name, good.get(name, getattr(type(self), name, None)))
        problems += _of_metrics(self)
        problems += [*_out_of_range(self), *_contradictions(self)]
        if problems:
            raise UsageError("; ".join(problems))

    def option_values(self) -> dict[str, Any]:
        """Give all settings in plain JSON values, for `run.json` and for comparing two trainings."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("models", "metrics")}
        models = {one.name: getattr(self.models, one.name) for one in fields(self.models)}
        return {name: _plain(value) for name, value in (own | models).items()}


def _of_metrics(settings: TrainSettings) -> list[str]:
    if isinstance(settings.metrics, list | tuple) and all(map(callable, settings.metrics)):
        object.__setattr__(settings, "metrics", tuple(settings.metrics))
        return []
    return ["metrics isn't a list of functions; give each as `Metric` describes it"]


def _out_of_range(settings: TrainSettings) -> list[str]:
    at_least: Mapping[str, float] = {
        **dict.fromkeys(("rank", "epochs", "batch_size", "accumulation", "keep"), 1),
        **dict.fromkeys(("seed", "negative_ratio", "warmup_steps", "weight_decay", "workers"), 0),
        "location_spread": 0,
        **dict.fromkeys(("eval_steps", "save_steps"), 0),
        **dict.fromkeys(("max_steps", "patience", "eval_images"), 1),
        "image_size": 16,
    }
    problems = [
        f"{name.replace('_', '-')} is {value:g}, it has to be at least {least:g}"
        for name, least in at_least.items()
        if (value := getattr(settings, name)) is not None and not value >= least
    ]
    problems += [
        f"{name.replace('_', '-')} is {getattr(settings, name):g}, it has to be above 0"
        for name in ("lr", "alpha", "max_grad_norm")
        if not getattr(settings, name) > 0
    ]
    if not 0 <= settings.dropout < 1:
        problems.append(f"dropout is {settings.dropout:g}, it has to be at least 0 and below 1")
    if len(settings.split) != 3 or sum(settings.split) != 100 or min(settings.split) < 1:
        shown = "/".join(map(str, settings.split))
        problems.append(f"split is {shown}, it has to be three percentages above 0 that sum to 100, as in 80/5/15")
    return problems


def _contradictions(settings: TrainSettings) -> list[str]:
    problems = []
    if not settings.parts:
        problems.append("parts is empty, so nothing would be trained; name language, vision, projector or head")
    if settings.method is Method.FULL:
        problems += [
            f"{name} belongs to adapters; leave it out, or take method lora"
            for name in ADAPTER_ONLY
            if getattr(settings, name) != getattr(TrainSettings, name)
        ]
        if settings.quantization is not Quantization.NONE:
            problems.append("a quantized base can't be trained itself; take method lora")
    if settings.negatives and settings.prompt_form is PromptForm.OD:
        problems.append("negatives are asked one at a time, and prompt-form od asks for all at once; leave one out")
    if settings.retention is not None and not settings.report:
        problems.append("retention is measured in the report, which is off; leave one out")
    return problems


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, frozenset):
        return sorted(str(one) for one in value)
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, StrEnum) else value
