"""The record beside tuned weights: their base, and how their images and questions were prepared."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grounded_seg.errors import WeightsError
from grounded_seg.text.documents import json_in
from grounded_seg.weights.config_records import Side, record_of
from grounded_seg.weights.locate import LocatedWeights

_LOG = logging.getLogger(__name__)

BASE_RECORD = "grounded_seg.json"
"""The record's file, beside peft's own."""


def write_adapter_base(adapter: Path, base: LocatedWeights, facts: Mapping[str, Any] | None = None) -> None:
    """Write the record of tuned weights into their folder: the base, which is known again by its hash, and more facts.

    `image_size` is read by `trained_image_size`, `prompt_form` and `classes` by `check_questions`; the others are for
    people.
    """
    content = {"base": {"id": base.name, "revision": base.revision, "sha256": base.sha256}, **(facts or {})}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (adapter / BASE_RECORD).write_text(text, encoding="utf-8")


def check_adapter_base(adapter: Path, base: LocatedWeights, *, allow_mismatch: bool = False) -> None:
    """Refuse an adapter whose record names other weights than these, or only warn; also warn where it has no record."""
    facts = _facts(adapter)
    if facts is None:
        _LOG.warning("The adapter %s has no record of its base; taking %s.", adapter, base.name)
        return
    try:
        name, revision, sha256 = (facts["base"][key] for key in ("id", "revision", "sha256"))
        if not isinstance(name, str) or not isinstance(revision, str | None):
            raise TypeError("id or revision of the base is no text")
    except (KeyError, TypeError) as error:
        raise _damaged(adapter, error) from error
    if sha256 == base.sha256:
        return
    commit = f" at {revision}" if revision else ""
    mismatch = f"the adapter {adapter} was trained on {name}{commit}, but {base.name} has other weights"
    if not allow_mismatch:
        raise WeightsError(f"{mismatch}; give that base with --detector, or add --allow-base-mismatch to use it anyway")
    _LOG.warning("--allow-base-mismatch: %s.", mismatch)


def trained_image_size(folder: Path) -> int | None:
    """Side of the square, in pixels, that the images of tuned weights were resized to; None if they weren't."""
    side = (_facts(folder) or {}).get("image_size")
    try:
        return record_of(_SideFields, {"image_size": side}).image_size
    except ValueError as error:
        raise _damaged(folder, error) from error


def check_questions(folder: Path, options: str) -> None:
    """Warn in the log where weights were tuned on other questions than those of `run`, which name one class each.

    `options` are those of the command line that name the weights, for the command that asks such questions.
    """
    facts = _facts(folder) or {}
    if facts.get("prompt_form", "class") != "class":
        taught, task = "to name all classes in one answer", "OD"
    elif "classes" in facts and not facts["classes"]:
        taught, task = "to answer with text", "TASK"
    else:
        return
    command = f"grounded-seg ask {task} IMAGE {options}"
    _LOG.warning("%s was trained %s; it may find little when asked for one thing: try %s", folder, taught, command)


def _facts(folder: Path) -> dict[str, Any] | None:
    """The content of the record, None where there is none; a `WeightsError` if it is damaged."""
    path = folder / BASE_RECORD
    if not path.is_file():
        return None
    try:
        # A figure that was measured may be NaN.
        content = json_in(path, is_finite=False)
        if not isinstance(content, dict):
            raise TypeError("no object in it")
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(folder, error) from error
    return content


@dataclass(frozen=True)
class _SideFields:
    image_size: Side | None = None


def _damaged(folder: Path, error: Exception) -> WeightsError:
    remedy = "copy it from where the weights were trained, or delete it to load them unchecked"
    return WeightsError(f"{folder / BASE_RECORD} is damaged ({error!r}); {remedy}")
