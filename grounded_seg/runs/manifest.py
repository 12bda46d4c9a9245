"""`run.json`: what a run does, with what, and in the end what it came to and how long it took."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from grounded_seg.errors import InputError
from grounded_seg.files import write_text
from grounded_seg.pipeline.load import FoundModels
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
        write_text(path, f"{self._text()}\n")

    def _text(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, default=_plain)


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
