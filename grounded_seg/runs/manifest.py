"""`run.json`: what a run does, with what, and in the end what it came to and how long it took."""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from grounded_seg.errors import InputError
from grounded_seg.pipeline.load import FoundModels
from grounded_seg.runs.folder import as_output_error
from grounded_seg.settings import RunSettings

_WHY_NEEDED = "a run that is resumed or merged needs it; put it back, or run anew with --overwrite"


@dataclass(frozen=True)
class Counts:
    """What a run came to."""

    images: int
    """Inputs, skipped ones too."""
    done: int
    skipped: int
    instances: int
    empty_masks: int | None
    """Detections dropped because their mask came out empty or too small; None for a resumed run, as the journal doesn't
    tell how many there were before."""
    unusable_boxes: int | None
    """Likewise, because their box isn't finite, has no area, or lies outside the image."""


@dataclass(frozen=True)
class ImageNames:
    """Which images a run is about."""

    root: Path
    """The folder that their names are relative to, absolute."""
    count: int
    sha256: str
    """Of all names, see `FoundImages.sha256`."""


@dataclass(frozen=True)
class Manifest:
    """All that is needed to tell how results came about, and to get them again."""

    prompts: Mapping[str, str]
    """The class of each prompt, in the order asked."""
    paths: tuple[str, ...]
    """Files, folders and lists, as they were given."""
    images: ImageNames
    settings: RunSettings
    models: FoundModels | None
    """None where the models were put together by hand."""
    images_at_once: int
    """The batch size, or less where the device's memory was too small for it."""
    counts: Counts | None = None
    """None until the run is finished, as for what follows."""
    seconds: Mapping[str, float] | None = None
    """Since the run was started or resumed: as `total`, and of each stage. Reading and writing go on beside the models,
    on several threads whose seconds add up."""
    exit_code: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Give the manifest as it reads back."""
        plain: dict[str, Any] = json.loads(self._text())
        return plain

    def write(self, path: Path) -> None:
        """Write the manifest as JSON, whole or not at all.

        Raises:
            OutputError: If it can't be written.
        """
        write_json(path, self._text())

    def _text(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, default=_plain)


def write_json(path: Path, text: str) -> None:
    """Write a file of JSON, whole or not at all, also where the power fails.

    Raises:
        OutputError: If it can't be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    with as_output_error(path):
        try:
            with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{text}\n")
                file.flush()
                # Before the new name is: else the old file could be gone, and the new one empty.
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have the system put the names of a folder's files onto the disk, where it knows how to."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems refuse; the files themselves are safe then all the same.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a run's manifest.

    Raises:
        InputError: If it isn't there or can't be read.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); {_WHY_NEEDED}") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); {_WHY_NEEDED}") from error
    if not isinstance(manifest, dict):
        raise InputError(f"{path} is no manifest of a run; {_WHY_NEEDED}")
    return manifest


def _plain(value: object) -> Any:
    """Bring what JSON doesn't know into a form that it does."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no place in a manifest")
