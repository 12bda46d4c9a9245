"""The folder of a training: what lies where, and whether it is the same training that would be resumed."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from grounded_seg.errors import UsageError
from grounded_seg.files import Lock, as_output_error, write_text
from grounded_seg.text.documents import json_in
from grounded_seg.train.settings import Method, TrainSettings

_LOCK_NAME = ".train.lock"
_SURROUNDINGS = ("device", "dtype", "threads", "processes")
"""What sums are rounded by, and with several processes what a step sees."""
_MAY_CHANGE = frozenset(
    {"output", "log_to", "report", "retention", "workers", "keep", "recipe", "offline", "max_pixels", "cache_features"}
)
"""Settings that no loss depends on, unless the data set's hash changes too."""


class TrainFolder:
    """Where each of a training's files belongs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.adapter, self.model = root / "adapter", root / "model"
        """The best adapter so far, or with full tuning the best model."""
        self.metrics = root / "metrics.jsonl"
        """A line of figures for each step and each validation."""
        self.loss_picture = root / "loss.png"
        self.report = root / "report.md"
        """Base against tuned, in words and pictures."""
        self.manifest = root / "run.json"
        """Settings, versions, weights and figures."""
        self.checkpoints = root / "checkpoints"

    def result(self, method: Method) -> Path:
        """Where the best weights lie."""
        return self.adapter if method is Method.LORA else self.model

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training here for the block; a folder that is empty after it goes away.

        Raises:
            UsageError: If another process trains here, or this is a file.
            OutputError: If the folder can't be made or written.
        """
        self._check_folder()
        made = [path for path in (self.root, *self.root.parents) if not path.exists()]
        with as_output_error(self.root, "another folder with -o"):
            self.root.mkdir(parents=True, exist_ok=True)
        lock = Lock(self.root / _LOCK_NAME, f"another process trains in {self.root}; name another folder with -o")
        try:
            yield
        finally:
            lock.release()
            # Of a training that failed before its first file nothing is left.
            with suppress(OSError):
                for path in made:
                    path.rmdir()

    def _check_folder(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"{self.root} is a file; name a folder with -o")

    def check_free(self) -> None:
        """Refuse a file, and a folder that holds anything that a training writes."""
        self._check_folder()
        own = (self.adapter, self.model, self.metrics, self.report, self.manifest, self.checkpoints)
        used = [path.name for path in own if path.is_file() or (path.is_dir() and any(path.iterdir()))]
        if used:
            raise UsageError(
                f"{self.root} already holds {', '.join(used)}; add --resume to resume it, or name another folder "
                "with -o"
            )

    def check_same(self, manifest: Mapping[str, Any]) -> None:
        """Refuse to resume a training of other settings, on another base or other data, or where losses would differ.

        `manifest` is of the training that would be resumed; the `UsageError` names all that differs.
        """
        try:
            known = json_in(self.manifest, is_finite=False)
            old, new = known["settings"], manifest["settings"]
            changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            changed = [key for key in changed if key not in _MAY_CHANGE]
            changed += [part for part in ("base", "data") if known[part]["sha256"] != manifest[part]["sha256"]]
            changed += _moved(known, manifest)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{self.root} holds no training to resume; leave --resume out") from error
        if changed:
            # Some of it comes from a file.
            named = "".join(letter if letter.isprintable() else "?" for letter in ", ".join(changed))
            named = named.replace("_", "-")
            raise UsageError(
                f"{self.root} was trained with other settings or data: {named}; give the same, or name another folder"
            )

    def is_finished(self, settings: TrainSettings, n_steps: int) -> bool:
        """Whether a training that took so many steps has all its results here, with the report that is asked for."""
        try:
            known = json_in(self.manifest, is_finite=False)
            is_done = known["status"] == "done" and known["steps"] == n_steps
            has_same_report = known["settings"]["retention"] == settings.option_values()["retention"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        needs = [self.result(settings.method), *([self.report] if settings.report else [])]
        return is_done and (has_same_report or not settings.report) and all(path.exists() for path in needs)

    def seconds_so_far(self) -> float:
        """What a training that is resumed took until its last checkpoint; 0 where `run.json` doesn't say."""
        try:
            seconds = float(json_in(self.manifest, is_finite=False)["seconds"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return 0.0
        return seconds if math.isfinite(seconds) and seconds > 0 else 0.0

    def write_manifest(self, content: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        with as_output_error(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        write_text(self.manifest, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _moved(known: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs in device, dtype, threads and processes, as far as both say so."""
    names = [name for name in _SURROUNDINGS if name in known and name in now]
    # Which of several cards it is changes nothing, and beside a card the CPU's threads don't either.
    kinds = [str(one.get("device")).partition(":")[0] for one in (known, now)]
    return [
        f"{name} (was {known[name]}, is {now[name]})"
        for name in names
        if (kinds[0] != kinds[1] if name == "device" else known[name] != now[name])
        and (name != "threads" or "cpu" in kinds)
    ]
