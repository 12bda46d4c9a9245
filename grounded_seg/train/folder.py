"""The folder of a training: what lies where, the log of its figures, and which checkpoint to go on from."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grounded_seg.errors import InputError, UsageError
from grounded_seg.files import as_output_error
from grounded_seg.train.settings import Method

Row = Mapping[str, float]
"""Figures of one moment, with its `step` and `epoch`."""

_SURROUNDINGS = ("device", "dtype", "threads", "processes")
"""What sums are rounded by, and with several processes what a step sees."""
_MAY_CHANGE = frozenset({"output", "log_to", "report", "retention", "workers", "keep", "recipe", "offline"})
"""Settings that no loss depends on."""
LOWER_IS_BETTER = frozenset({"loss", "absent_rate", "edit_distance"})
"""Among the built-in figures."""


@dataclass(frozen=True)
class TrainFolder:
    """Where each of a training's files belongs."""

    root: Path

    @property
    def adapter(self) -> Path:
        """The best adapter so far."""
        return self.root / "adapter"

    @property
    def model(self) -> Path:
        """The best model so far, of full tuning."""
        return self.root / "model"

    @property
    def metrics(self) -> Path:
        """A line of figures for each step and each validation."""
        return self.root / "metrics.jsonl"

    @property
    def loss_picture(self) -> Path:
        """The curves of training and validation loss."""
        return self.root / "loss.png"

    @property
    def report(self) -> Path:
        """Base against tuned, in words and pictures."""
        return self.root / "report.md"

    @property
    def manifest(self) -> Path:
        """Settings, versions, weights and figures."""
        return self.root / "run.json"

    @property
    def checkpoints(self) -> Path:
        """What `--resume` goes on from."""
        return self.root / "checkpoints"

    def result(self, method: Method) -> Path:
        """Where the best weights lie."""
        return self.adapter if method is Method.LORA else self.model

    def check_free(self) -> None:
        """Refuse a folder that holds a training.

        Raises:
            UsageError: If it is no folder, or holds anything that a training writes.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"{self.root} is a file; name a folder with -o")
        own = (self.adapter, self.model, self.metrics, self.report, self.manifest, self.checkpoints)
        used = [path.name for path in own if path.is_file() or (path.is_dir() and any(path.iterdir()))]
        if used:
            raise UsageError(
                f"{self.root} already holds {', '.join(used)}; add --resume to go on with it, or name another folder "
                "with -o"
            )

    def check_same(self, manifest: Mapping[str, Any]) -> None:
        """Refuse to go on with a training of other settings, on another base or other data, or where losses differ.

        Args:
            manifest: Of the training that would go on.

        Raises:
            UsageError: If there is no training to go on with, or something differs; it names what.
        """
        try:
            known = json.loads(self.manifest.read_text(encoding="utf-8"))
            old, new = known["settings"], manifest["settings"]
            changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            changed = [key for key in changed if key not in _MAY_CHANGE]
            changed += [part for part in ("base", "data") if known[part]["sha256"] != manifest[part]["sha256"]]
            changed += _moved(known, manifest)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{self.root} holds no training to go on with; leave --resume out") from error
        if changed:
            raise UsageError(
                f"{self.root} was trained with other {', '.join(changed)}; give the same, or name another folder"
            )

    def last_checkpoint(self) -> Path | None:
        """Find the last whole checkpoint; its state is what is written last, so a cut-off one has none."""
        found = []
        for folder in self.checkpoints.glob("checkpoint-*"):
            try:
                found.append((int(json.loads((folder / "trainer_state.json").read_text())["global_step"]), folder))
            except (OSError, ValueError, KeyError):
                continue
        return max(found)[1] if found else None

    @as_output_error()
    def write_manifest(self, content: Mapping[str, Any]) -> None:
        """Write `run.json`, whole or not at all.

        Raises:
            OutputError: If it can't be written.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        part = self.manifest.with_suffix(".part")
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(self.manifest)


def _moved(known: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs in device, number format, threads and processes, as far as both say so."""
    names = [name for name in _SURROUNDINGS if name in known and name in now]
    # Which of several cards it is changes nothing, and beside a card the CPU's threads don't either.
    kinds = [str(one.get("device")).partition(":")[0] for one in (known, now)]
    return [
        f"{name} (was {known[name]}, is {now[name]})"
        for name in names
        if (kinds[0] != kinds[1] if name == "device" else known[name] != now[name])
        and (name != "threads" or "cpu" in kinds)
    ]


class MetricsLog:
    """`metrics.jsonl`, kept in memory as well: a line for each step's loss, and for each validation."""

    def __init__(
        self,
        path: Path,
        up_to_step: int = 0,
        *,
        writes: bool = True,
        lower_is_better: Collection[str] = LOWER_IS_BETTER,
    ) -> None:
        """Read what is there, up to the checkpoint that is gone on from.

        Args:
            path: The file; there need not be one.
            up_to_step: The checkpoint's step; 0 to start anew.
            writes: Off where another process of the same training writes the file.
            lower_is_better: The figures of which the lowest is the best.

        Raises:
            InputError: If a line of the kept part is damaged.
        """
        self._path = path
        self._writes = writes
        self._lower_is_better = lower_is_better
        self.rows: list[Row] = []
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() and up_to_step else []
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                if row["step"] > up_to_step:
                    break
            except (ValueError, KeyError, TypeError) as error:
                # A kill may cut the last line off.
                if number == len(lines):
                    break
                raise InputError(f"{path}:{number}: this is no line of figures; train anew") from error
            self.rows.append(row)

    @as_output_error()
    def start(self) -> None:
        """Cut off in the file what came after the checkpoint, or begin an empty one.

        Raises:
            OutputError: If it can't be written.
        """
        if not self._writes:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        part.replace(self._path)

    def add(self, row: Row) -> None:
        """Write a line.

        Raises:
            OutputError: If it can't be written.
        """
        self.rows.append(dict(row))
        if not self._writes:
            return
        with as_output_error(), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def best(self, metric: str) -> Row | None:
        """Give the validation with the best value of a figure; None before there is any.

        Of equal ones it is the one with the lowest loss, then the first: while nothing is found at all, AP is 0 and the
        loss alone tells that something is being learnt.
        """
        key = f"valid_{metric}"
        rows = [row for row in self.rows if key in row]
        return max(rows, key=lambda row: (self._goodness(metric, row), -row.get("valid_loss", math.inf)), default=None)

    def epochs_since_best(self, metric: str) -> float:
        """Count the epochs from the first best value of a figure to the last line; 0 before there is any."""
        rows = [row for row in self.rows if f"valid_{metric}" in row]
        if not rows:
            return 0.0
        return self.rows[-1]["epoch"] - max(rows, key=lambda row: self._goodness(metric, row))["epoch"]

    def _goodness(self, metric: str, row: Row) -> float:
        value = row[f"valid_{metric}"]
        return -value if metric in self._lower_is_better else value
