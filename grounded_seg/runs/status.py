"""How far runs are, while they run or after: read from manifest and journal, without their lock."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from grounded_seg.errors import InputError
from grounded_seg.files import is_locked
from grounded_seg.runs.folder import RunFolder, find_runs
from grounded_seg.runs.journal import LOCK_NAME, JournalCounts, count_lines
from grounded_seg.runs.manifest import read_manifest
from grounded_seg.runs.shards import missing_shards


class RunState(StrEnum):
    """Whether a run goes on by itself."""

    RUNNING = "running"
    """A process holds its lock."""
    STOPPED = "stopped"
    """No process does, and images are left: `--resume` goes on."""
    UNFINISHED = "unfinished"
    """Running or stopped: its lock can't be asked, as in a folder of somebody else."""
    FINISHED = "finished"


@dataclass(frozen=True)
class RunStatus:
    """How far one run is."""

    run: Path
    """Its folder."""
    state: RunState
    shard: str | None
    """K/N; None for a run over all of its images."""
    images: int | None
    """All that it is about; None before its first image."""
    done: int
    skipped: int
    out_of_reach: int
    """Of those skipped: `--resume` asks about them again."""
    left: int | None
    images_per_s: float | None
    """Since it began or was resumed, without the loading of models; None before its first image."""
    time_left_s: float | None
    """None unless it is running."""
    idle_s: float | None
    """Since its last line was written; None where it isn't running."""

    @property
    def n_lines(self) -> int:
        """Images done and skipped."""
        return self.done + self.skipped


@dataclass(frozen=True)
class RunsStatus:
    """How far several runs are, and all of them together."""

    runs: tuple[RunStatus, ...]
    missing_shards: tuple[int, ...]
    """Numbers of the shards that aren't among the runs, where all of these are shards of one list."""
    n_shards: int | None
    """How many shards the list has; None unless all runs are shards of one list."""
    images: int | None
    """Where the runs are shards of one list, those of all shards."""

    @property
    def done(self) -> int:
        """Images done."""
        return sum(one.done for one in self.runs)

    @property
    def skipped(self) -> int:
        """Images skipped."""
        return sum(one.skipped for one in self.runs)

    @property
    def left(self) -> int | None:
        """Images that are neither."""
        return None if self.images is None else self.images - self.done - self.skipped

    @property
    def images_per_s(self) -> float | None:
        """Of the runs that are running together."""
        rates = [one.images_per_s for one in self.runs if one.state is RunState.RUNNING]
        return sum(rate for rate in rates if rate is not None) if rates else None

    @property
    def time_left_s(self) -> float | None:
        """Until the last of those running is finished."""
        return max((one.time_left_s for one in self.runs if one.time_left_s is not None), default=None)

    def as_json(self) -> dict[str, Any]:
        """Give what `status --json` prints."""
        total = {
            "runs": len(self.runs),
            "states": {str(state): sum(one.state is state for one in self.runs) for state in RunState},
            "images": self.images,
            "done": self.done,
            "skipped": self.skipped,
            "left": self.left,
            "images_per_s": self.images_per_s,
            "time_left_s": self.time_left_s,
            "missing_shards": list(self.missing_shards),
        }
        return {"runs": [{**asdict(one), "run": str(one.run)} for one in self.runs], "total": total}


def status_of(runs: Sequence[Path]) -> RunsStatus:
    """Tell how far runs are, from their folders or patterns of such; memory doesn't grow with the runs.

    Raises:
        InputError: If a folder is no run's, or can't be read.
    """
    manifests: list[Mapping[str, Any]] = []
    found = []
    for run in find_runs(runs):
        manifest = _manifest_of(RunFolder(run))
        manifests.append(manifest)
        found.append(_status(RunFolder(run), manifest))
    lists = {
        (shard["count"], shard["whole"]["sha256"], shard["whole"]["count"])
        for one in manifests
        if (shard := one.get("shard")) is not None
    }
    numbers = [one["shard"]["number"] for one in manifests if one.get("shard") is not None]
    if len(lists) == 1 and len(numbers) == len(set(numbers)) == len(found):
        [(n_shards, _, n_images)] = lists
        return RunsStatus(tuple(found), tuple(missing_shards(numbers, n_shards)), n_shards, n_images)
    totals = [one.images for one in found]
    n_known = None if None in totals else sum(one for one in totals if one is not None)
    return RunsStatus(tuple(found), (), None, n_known)


def _manifest_of(folder: RunFolder) -> Mapping[str, Any]:
    """Read the manifest; empty where a run has locked its folder and is still clearing it."""
    if not folder.root.is_dir():
        raise InputError(f"no run is at {folder.root}; check the path, or wait until its models are loaded")
    if not folder.manifest.exists() and folder.journal.exists():
        return {}
    manifest = read_manifest(folder.manifest)
    if not isinstance(manifest.get("images"), Mapping) or not isinstance(manifest["images"].get("count"), int):
        raise InputError(f"{folder.manifest} isn't that of a run; name folders that run wrote")
    return manifest


def _status(folder: RunFolder, manifest: Mapping[str, Any]) -> RunStatus:
    images = manifest["images"]["count"] if manifest else None
    # Before the journal is read: a run that ends meanwhile isn't taken for one that stopped.
    state = _state(folder, manifest)
    counts = manifest.get("counts")
    if state is RunState.FINISHED and counts is not None:
        journal = JournalCounts(counts["images"], counts["skipped"], counts.get("out_of_reach", 0))
    else:
        journal = count_lines(folder.journal)
    rate, idle_s = _rate(folder, manifest, state, journal.n_lines)
    left = None if images is None else max(images - journal.n_lines, 0)
    shard = manifest.get("shard")
    return RunStatus(
        run=folder.root,
        state=state,
        shard=None if shard is None else f"{shard['number']}/{shard['count']}",
        images=images,
        done=journal.n_lines - journal.n_skipped,
        skipped=journal.n_skipped,
        out_of_reach=journal.n_again,
        left=left,
        images_per_s=rate,
        time_left_s=left / rate if state is RunState.RUNNING and left is not None and rate else None,
        idle_s=idle_s if state is RunState.RUNNING else None,
    )


def _state(folder: RunFolder, manifest: Mapping[str, Any]) -> RunState:
    locked = is_locked(folder.root / LOCK_NAME)
    if manifest.get("exit_code") is not None and not locked:
        return RunState.FINISHED
    if locked is None:
        return RunState.UNFINISHED
    return RunState.RUNNING if locked else RunState.STOPPED


def _rate(
    folder: RunFolder, manifest: Mapping[str, Any], state: RunState, n_lines: int
) -> tuple[float | None, float | None]:
    """Give images per second, and the seconds since the last line."""
    started, now = manifest.get("started"), time.time()
    if started is None:
        return None, None
    last = folder.journal.stat().st_mtime if folder.journal.exists() else now
    n_new = n_lines - started["images"]
    if state is RunState.FINISHED and "total" in (seconds := manifest.get("seconds") or {}):
        taken = seconds["total"] - seconds.get("load", 0.0)
    else:
        # The clock of the disk may be another one than this machine's.
        until = max(now, last) if state is RunState.RUNNING else last
        try:
            taken = until - datetime.fromisoformat(started["time"]).timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise InputError(f"{folder.manifest} isn't that of a run ({error}); name folders that run wrote") from error
    return (n_new / taken if n_new > 0 and taken > 0 else None), max(now - last, 0.0)
