"""The lock file: which commit each branch of a repository stands for, and the hash of each file fetched from it."""

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from grounded_seg.errors import WeightsError
from grounded_seg.files import one_process_at_a_time, whole_file
from grounded_seg.text.documents import json_in
from grounded_seg.weights.fetch import cache_folder

_LOG = logging.getLogger(__name__)

LOCK_FILE = "models.lock.json"
_VERSION = 1
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class PinnedFile:
    """A file as it was fetched."""

    n_bytes: int
    digest: str
    """sha256, or git's hash of a small file."""


@dataclass(frozen=True)
class Pin:
    """A revision of a repository, fixed to a commit; or a published file."""

    commit: str | None
    """None for a file that has no versions."""
    files: Mapping[str, PinnedFile] = field(default_factory=lambda: MappingProxyType({}))
    """By their paths."""


def lock_path() -> Path:
    """Where the lock file of this user's cache is."""
    return cache_folder() / LOCK_FILE


def read_pins(path: Path) -> dict[tuple[str, str], Pin]:
    """The pins of a lock file by repository and revision; none if there is no such file.

    Raises:
        WeightsError: If it is damaged.
    """
    try:
        content = json_in(path)
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']!r}")
        return {
            (repo_id, revision): _pin_from(pin)
            for repo_id, revisions in content["models"].items()
            for revision, pin in revisions.items()
        }
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} can't be read ({str(error) or type(error).__name__}); "
            "delete it, and fix the commits again with `grounded-seg models fetch`"
        ) from error


def pin_of(repo_id: str, revision: str) -> Pin | None:
    """What a revision is fixed to in this user's lock file."""
    return read_pins(lock_path()).get((repo_id, revision))


def write_pin(repo_id: str, revision: str, pin: Pin | None, path: Path | None = None) -> None:
    """Fix a revision in a lock file, or with None take it out; files pinned before at the same commit stay.

    A cache that can't be written is a warning: the next run asks the hub again.
    """
    path = path or lock_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with one_process_at_a_time(path.with_name(f".{path.name}.lock"), partial(time.sleep, 0.05)):
            pins = read_pins(path)
            before = pins.pop((repo_id, revision), None)
            if pin is not None:
                kept = before.files if before is not None and before.commit == pin.commit else {}
                pins[repo_id, revision] = Pin(pin.commit, {**kept, **pin.files})
            if pins:
                with whole_file(path) as file:
                    file.write(_text_of(pins).encode())
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        _LOG.warning("%s can't be written (%s): the commit isn't fixed", path, error.strerror or error)


def _pin_from(content: Any) -> Pin:
    commit = content["commit"]
    if commit is not None and not _COMMIT.fullmatch(commit):
        raise ValueError(f"{commit!r} is no commit")
    files = {name: PinnedFile(int(one["bytes"]), one["digest"]) for name, one in content["files"].items()}
    for name, one in files.items():
        if not _DIGEST.fullmatch(one.digest):
            raise ValueError(f"{name} has no hash")
    return Pin(commit, files)


def _text_of(pins: Mapping[tuple[str, str], Pin]) -> str:
    models: dict[str, dict[str, Any]] = {}
    for (repo_id, revision), pin in sorted(pins.items()):
        files = {name: {"bytes": one.n_bytes, "digest": one.digest} for name, one in sorted(pin.files.items())}
        models.setdefault(repo_id, {})[revision] = {"commit": pin.commit, "files": files}
    return json.dumps({"version": _VERSION, "models": models}, indent=2) + "\n"
