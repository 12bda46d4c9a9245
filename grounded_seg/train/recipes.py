"""Recipes, and settings of a training put together from a recipe, a file and the command line."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict

from grounded_seg.errors import InputError, UsageError
from grounded_seg.setting_types import convert_values
from grounded_seg.settings import ModelSettings, Precision, Reviewed
from grounded_seg.train.settings import (
    ADAPTER_ONLY,
    Logger,
    Method,
    OptimizerName,
    Part,
    PromptForm,
    Quantization,
    Schedule,
    TrainSettings,
)

if TYPE_CHECKING:
    from grounded_seg.train.measure.metrics import Metric

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "card": {
            "rank": 64,
            "alpha": 128.0,
            "dropout": 0.1,
            "lr": 1e-4,
            "epochs": 15,
            "split": (80, 5, 15),
            "image_size": 224,
        },
        "caption": {
            "method": Method.FULL,
            "parts": frozenset(Part),
            "optimizer": OptimizerName.CAME,
            "schedule": Schedule.REX,
            "lr": 3e-6,
            "epochs": 2,
            "batch_size": 8,
            "accumulation": 4,
            "max_grad_norm": 1.0,
            "weight_decay": 1e-2,
            "gradient_checkpointing": True,
            "warmup_steps": 10,
            "save_steps": 10,
            "eval_steps": 10,
            "keep": 3,
            "split": (94, 5, 1),
            "seed": 42,
        },
        "quick": {"rank": 16, "alpha": 32.0, "dropout": 0.0, "lr": 1e-3, "epochs": 3, "batch_size": 16},
    }
)
"""`card`: an adapter, with a published tutorial's settings. `caption`: full tuning on texts. `quick`: a first try."""

MODEL_KEYS = ("preset", "detector", "segmenter", "device", "dtype", "offline")
"""Settings of the models that a training takes, beside the fields of `TrainSettings`."""

_SEPARATORS: Mapping[str, str] = MappingProxyType({"parts": ",", "log_to": ",", "split": "/", "negatives": ";"})
"""What stands between the items of a list that is given as one text."""
_MOST_BYTES = 1 << 20
"""Of a file of settings."""
_TEXTS = ("dataset", "output", "retention", "negatives", "preset", "detector", "segmenter")
"""Settings that are texts: YAML must not take them for anything else."""


class TrainKeywords(TypedDict, total=False):
    """Settings of a training as keywords: the fields of `TrainSettings`, those of its models, a recipe and a file.

    Choices and paths may be given as text, lists as any sequence.
    """

    dataset: Path | str
    output: Path | str
    reviewed: Reviewed | str | None
    recipe: str | None
    config: Path | str | None
    models: ModelSettings
    preset: str
    detector: str | None
    segmenter: str | None
    device: str
    dtype: Precision | str
    offline: bool
    split: Sequence[int] | str
    seed: int
    prompt_form: PromptForm | str
    negative_ratio: float
    negatives: Sequence[str] | str
    image_size: int | None
    max_pixels: int
    augment: bool
    strict: bool
    method: Method | str
    parts: Collection[Part | str] | str
    rank: int
    alpha: float
    dropout: float
    rslora: bool
    dora: bool
    quantization: Quantization | str
    gradient_checkpointing: bool
    epochs: int
    max_steps: int | None
    batch_size: int
    accumulation: int
    lr: float
    optimizer: OptimizerName | str
    schedule: Schedule | str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    location_spread: float
    cache_features: bool
    workers: int
    eval_steps: int
    save_steps: int
    keep: int
    best_metric: str
    patience: int | None
    eval_images: int | None
    log_to: Collection[Logger | str] | str
    report: bool
    retention: Path | str | None
    metrics: "Sequence[Metric]"


def settings_or_keywords(settings: TrainSettings | None, keywords: Mapping[str, Any]) -> TrainSettings:
    """Take settings as they are, or build them from keywords, each over those of the recipe and file that they name.

    Raises:
        UsageError: As for `settings_from`; for a keyword that is no setting with the nearest, and all there are; if
            both settings and keywords are given.
    """
    if settings is not None:
        if keywords:
            raise UsageError(f"{', '.join(keywords)} given beside settings; put all into the settings, or give none")
        return settings
    # The command line, which has no keywords, loads this module for its help.
    from grounded_seg.engine.keywords import refuse_unknown

    refuse_unknown(keywords, TrainKeywords.__annotations__)
    given = dict(keywords)
    recipe, file, metrics = (given.pop(name, None) for name in ("recipe", "config", "metrics"))
    models = given.pop("models", None)
    if models is not None:
        given = {name: getattr(models, name) for name in MODEL_KEYS} | given
    settings = settings_from(recipe, None if file is None else Path(file), given)
    if models is not None:
        settings = replace(settings, models=replace(models, **{k: getattr(settings.models, k) for k in MODEL_KEYS}))
    return settings if metrics is None else replace(settings, metrics=tuple(metrics))


def settings_from(
    recipe: str | None,
    file: Path | None,
    given: Mapping[str, Any],
    environment: Mapping[str, Any] = MappingProxyType({}),
) -> TrainSettings:
    """Build settings from environment, recipe, file and what is given, each over those before.

    Args:
        recipe: One of `RECIPES`; None to take the file's `recipe`, where it names one.
        file: YAML, TOML or JSON with one key for each setting, as `epochs` or `batch-size`.
        given: Fields of `TrainSettings` and `MODEL_KEYS` by name. Texts are read as a file's are.
        environment: The same.

    Raises:
        UsageError: If there is no such recipe, the file can't be read, or keys or values are wrong; all are named.
    """
    from_file = {} if file is None else _read(file)
    name = recipe or from_file.get("recipe") or ""
    if name and (not isinstance(name, str) or name not in RECIPES):
        raise UsageError(f"there is no recipe {name!r}, choose one of {', '.join(RECIPES)}")
    merged = {**environment, **RECIPES.get(name, {}), **from_file, **given, "recipe": name}
    models = {one.name: one.type for one in fields(ModelSettings) if one.name in MODEL_KEYS}
    own = {one.name: one.type for one in fields(TrainSettings) if one.name not in ("models", "metrics")}
    types: dict[str, Any] = own | models
    known = {key: _listed(key, value) for key, value in merged.items() if key in types}
    values, problems = convert_values(known, types, numbers_as_text=True)
    problems += [f"there is no setting {key.replace('_', '-')!r}" for key in merged if key not in types]
    problems += [f"{key} is missing" for key in ("dataset", "output") if key not in merged]
    if values.get("method") is Method.FULL:
        # What only the recipe says of an adapter is dropped; what was given by hand is refused.
        of_recipe = {key for key in ADAPTER_ONLY if key not in from_file and key not in given}
        values = {key: value for key, value in values.items() if key not in of_recipe}
    of_models = ModelSettings(**{key: values.pop(key) for key in MODEL_KEYS if key in values})
    try:
        settings = TrainSettings(models=of_models, **{"dataset": Path(), "output": Path(), **values})
    except UsageError as error:
        problems.append(str(error))
    if problems:
        raise UsageError("; ".join(problems) + ("" if file is None else f" ({file})"))
    return settings


def _read(file: Path) -> dict[str, Any]:
    # The command line, which has no such file as a rule, loads this module for its help.
    from grounded_seg.text.decoding import decode_text
    from grounded_seg.text.documents import json_of, limited_bytes, toml_of

    try:
        text = decode_text(limited_bytes(file, _MOST_BYTES), file)
        read = {".toml": toml_of, ".json": json_of}.get(file.suffix.lower())
        content: Any = _yaml(text, file) if read is None else read(text)
    except OSError as error:
        raise UsageError(f"{file}: the settings can't be read ({error.strerror}); check the path") from error
    except InputError as error:
        raise UsageError(str(error)) from error
    except ValueError as error:
        raise UsageError(f"{file}: {' '.join(str(error).split())}; correct it") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} isn't a list of `setting: value` lines; correct it")
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def _yaml(text: str, file: Path) -> Any:
    """Read YAML in which names and prompts stay texts: `no` and `1_000` are no values there."""
    # These would slow --help down.
    import yaml

    from grounded_seg.text.yaml_nodes import is_yaml_null, yaml_entries, yaml_root, yaml_text, yaml_values

    root = yaml_root(text, file)
    if not isinstance(root, yaml.MappingNode):
        return None
    texts: dict[str, Any] = {}
    for _, key, node in yaml_entries(root, file):
        if key.replace("-", "_") not in _TEXTS or (is_yaml_null(node)):
            continue
        if isinstance(node, yaml.SequenceNode):
            texts[key] = [yaml_text(one, file) for one in node.value]
        elif isinstance(node, yaml.ScalarNode):
            texts[key] = yaml_text(node, file)
    values = yaml_values(text, file)
    # A mapping may be tagged as something else.
    return {**values, **texts} if isinstance(values, dict) else None


def _listed(key: str, value: Any) -> Any:
    """Split the text of a list; a list in JSON or TOML may hold numbers where texts are meant."""
    if key not in _SEPARATORS:
        return value
    if isinstance(value, str):
        value = [one.strip() for one in value.split(_SEPARATORS[key]) if one.strip()]
    if key != "negatives" or not isinstance(value, list | tuple):
        return value
    return [str(one).strip() if type(one) in (str, int, float) else one for one in value]
