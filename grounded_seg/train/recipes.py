"""Settings by name, and from files: the recipe first, then the file, then what was given by hand."""

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

import yaml

from grounded_seg.errors import UsageError
from grounded_seg.settings import ModelSettings, Precision
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
"""`card`: an adapter as a published tutorial tunes it. `caption`: full tuning on texts. `quick`: a first try."""

MODEL_KEYS = ("preset", "detector", "segmenter", "device", "dtype", "offline")
"""Settings of the models that a training takes, beside the fields of `TrainSettings`."""

_ENUMS: Mapping[str, type[StrEnum]] = MappingProxyType(
    {
        "prompt_form": PromptForm,
        "method": Method,
        "optimizer": OptimizerName,
        "schedule": Schedule,
        "quantization": Quantization,
        "dtype": Precision,
    }
)
_ENUM_SETS: Mapping[str, type[StrEnum]] = MappingProxyType({"parts": Part, "log_to": Logger})
_NOT_IN_FILES = frozenset({"models", "metrics"})


def settings_from(
    recipe: str | None,
    file: Path | None,
    given: Mapping[str, Any],
    environment: Mapping[str, Any] = MappingProxyType({}),
) -> TrainSettings:
    """Put settings together, later ones over earlier ones: defaults, environment, recipe, file, given.

    Args:
        recipe: One of `RECIPES`; None to take the file's `recipe`, where it names one.
        file: YAML, TOML or JSON with one key for each setting, as `epochs` or `batch-size`.
        given: By name; the fields of `TrainSettings`, and `MODEL_KEYS`. Texts are read as a file's are.
        environment: Likewise, what the surroundings say for all trainings.

    Raises:
        UsageError: If there is no such recipe, the file can't be read, or any key or value makes no sense; all of them
            are named at once.
    """
    from_file = {} if file is None else _read(file)
    name = recipe or from_file.get("recipe") or ""
    if name and (not isinstance(name, str) or name not in RECIPES):
        raise UsageError(f"there is no recipe {name!r}, choose one of {', '.join(RECIPES)}")
    merged = {**environment, **RECIPES.get(name, {}), **from_file, **given, "recipe": name}
    values, problems = {}, []
    types = _types()
    for key, value in merged.items():
        if key not in types:
            problems.append(f"there is no setting {key.replace('_', '-')!r}")
            continue
        try:
            values[key] = _converted(key, value, types[key])
        except (ValueError, TypeError) as error:
            problems.append(f"{key.replace('_', '-')} is {value!r}: {error}")
    problems += [f"{key} is missing" for key in ("dataset", "output") if key not in merged]
    if problems:
        where = f" ({file})" if file is not None else ""
        raise UsageError("; ".join(problems) + where)
    if values.get("method") is Method.FULL:
        # Settings of an adapter that only the recipe names aren't asked for; those given by hand are refused.
        of_recipe = {key for key in ADAPTER_ONLY if key not in from_file and key not in given}
        values = {key: value for key, value in values.items() if key not in of_recipe}
    models = ModelSettings(**{key: values.pop(key) for key in MODEL_KEYS if key in values})
    return TrainSettings(models=models, **values)


def _types() -> dict[str, Any]:
    """Give the type of each setting that a file may hold."""
    hints = get_type_hints(ModelSettings)
    # `metrics` is a name for type checkers only; it is no setting of files.
    own = {one.name: one.type for one in fields(TrainSettings) if one.name not in _NOT_IN_FILES}
    return own | {key: hints[key] for key in MODEL_KEYS}


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        suffix = file.suffix.lower()
        if suffix == ".toml":
            content: Any = tomllib.loads(text)
        else:
            content = json.loads(text) if suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"{file}: the settings can't be read ({error.strerror}); check the path") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{file}: {' '.join(str(error).split())}; correct it") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} isn't a list of `setting: value`; correct it")
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def _converted(key: str, value: Any, kind: Any) -> Any:
    """Bring a value into its setting's type; a text may stand for any of them.

    Raises:
        ValueError, TypeError: If it can't be.
    """
    if key in _ENUMS:
        return _member(_ENUMS[key], value)
    if key in _ENUM_SETS:
        return frozenset(_member(_ENUM_SETS[key], one) for one in _listed(value, ","))
    if key == "split":
        return tuple(int(one) for one in _listed(value, "/"))
    if key == "negatives":
        return tuple(str(one).strip() for one in _listed(value, ";"))
    return _plain(value, kind)


def _plain(value: Any, kind: Any) -> Any:
    options = get_args(kind) or (kind,)
    if value is None and type(None) in options:
        return None
    wanted = next(one for one in options if one is not type(None))
    if wanted is bool:
        if not isinstance(value, bool):
            raise ValueError("true or false is expected")
        return value
    if isinstance(value, bool):
        raise ValueError(f"{wanted.__name__} is expected")
    if wanted is int:
        if isinstance(value, float) and not value.is_integer():
            raise ValueError("a whole number is expected")
        return int(value)
    if wanted is float:
        # YAML reads 1e-4 as text.
        if not math.isfinite(number := float(value)):
            raise ValueError("a finite number is expected")
        return number
    return wanted(value)


def _member(kind: type[StrEnum], value: Any) -> StrEnum:
    try:
        return kind(value)
    except ValueError as error:
        raise ValueError(f"it has to be one of {', '.join(kind)}") from error


def _listed(value: Any, separator: str) -> list[Any]:
    if isinstance(value, str):
        return [one.strip() for one in value.split(separator) if one.strip()]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    raise ValueError("a list is expected")
