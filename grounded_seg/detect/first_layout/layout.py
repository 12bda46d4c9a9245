"""Which of the two layouts a Florence-2 or an adapter is in, told by names alone: no library of models is needed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from grounded_seg.errors import UsageError, WeightsError
from grounded_seg.text.printable import safe_text
from grounded_seg.weights.config_records import config_in
from grounded_seg.weights.files import ADAPTER_FILE
from grounded_seg.weights.retries import first_line

PREFIX = "base_model.model."
"""What peft puts before the path of a module."""
ADAPTER_CONFIG = "adapter_config.json"
_OLDER_ROOTS = (
    *("vision_tower", "language_model", "image_projection", "image_proj_norm", "image_pos_embed"),
    "visual_temporal_embed",
)


def is_older_path(path: str) -> bool:
    """Whether a path is of the first implementation; native ones begin with `model` or `lm_head`."""
    return path.partition(".")[0] in _OLDER_ROOTS


def is_older_adapter(keys: Iterable[str]) -> bool:
    """Whether an adapter was trained on the first implementation, by the paths of its tensors."""
    return any(is_older_path(key.removeprefix(PREFIX)) for key in keys)


def is_older_config(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of the older layout, by its vision tower."""
    vision = config["vision_config"]
    return "dim_embed" in vision or vision.get("model_type") in ("davit", "florence2_vision")


def has_older_layout(folder: Path) -> bool:
    """Whether a folder is in the first implementation's layout; a `WeightsError` if it is in neither."""
    path = folder / "config.json"
    try:
        config = config_in(path)
        is_older = is_older_config(config)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} can't be read ({first_line(error)}); name the folder of a Florence-2") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} isn't the configuration of a Florence-2; name another folder") from error
    if (kind := config.get("model_type")) != "florence2":
        shown = safe_text(repr(kind), most=60)
        raise WeightsError(f"{folder} holds a {shown}, not a Florence-2; name another folder")
    return is_older


def check_convertible(source: Path) -> None:
    """Refuse a model or adapter that is in the native layout already, as a `UsageError`.

    A damaged adapter passes: what is wrong with it is told where its tensors are read.
    """
    if not (source / ADAPTER_CONFIG).is_file():
        if not has_older_layout(source):
            raise UsageError(f"{source} is in the native layout already; use it as it is")
        return
    try:
        with safe_open(source / ADAPTER_FILE, framework="numpy") as tensors:
            names = list(tensors.keys())
    except (OSError, SafetensorError):
        return
    if not is_older_adapter(names):
        raise UsageError(f"{source} is an adapter for the native layout already; use it as it is")
