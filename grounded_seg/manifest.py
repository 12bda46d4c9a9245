"""`run.json`: what a run did, with what, and how long it took."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from grounded_seg.loading import LoadedModels
from grounded_seg.run_folder import as_output_error
from grounded_seg.settings import RunSettings


@dataclass(frozen=True)
class Counts:
    """What a run came to."""

    images: int
    """Inputs, skipped ones too."""
    done: int
    skipped: int
    instances: int
    empty_masks: int
    """Detections dropped because their mask came out empty or too small."""
    unusable_boxes: int
    """Detections dropped because their box isn't finite, has no area, or lies outside the image."""


@dataclass(frozen=True)
class Manifest:
    """All that is needed to tell how results came about, and to get them again."""

    prompts: Mapping[str, str]
    """The class of each prompt, in the order asked."""
    paths: tuple[Path, ...]
    """Files and folders, as they were given."""
    settings: RunSettings
    models: LoadedModels | None
    """None where the models were put together by hand."""
    counts: Counts
    seconds: Mapping[str, float]
    """Of each stage, and of the whole run as `total`."""
    exit_code: int

    def write(self, path: Path) -> None:
        """Write the manifest as JSON, whole or not at all.

        Raises:
            OutputError: If it can't be written.
        """
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False, default=_plain)
        temporary = path.with_name(f".{path.name}.part")
        with as_output_error():
            temporary.write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")
            temporary.replace(path)


def _plain(value: object) -> Any:
    """Bring what JSON doesn't know into a form that it does."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no place in a manifest")
