"""One training, from a data set to an adapter and a report."""

import gc
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grounded_seg.device.choose import resolve_device, resolve_dtype
from grounded_seg.device.memory import out_of_memory_as_device_error
from grounded_seg.errors import UsageError
from grounded_seg.train.base import load_base, locate_base
from grounded_seg.train.data.data_set import read_training_data
from grounded_seg.train.data.lengths import without_long_rows
from grounded_seg.train.data.records import Fault, TrainingData, fault_lines
from grounded_seg.train.fit.callbacks import Watcher
from grounded_seg.train.fit.curves import draw_losses
from grounded_seg.train.fit.prepared import PreparedTraining, is_first_process
from grounded_seg.train.folder import MetricsLog, Row, TrainFolder
from grounded_seg.train.measure.comparison import Progress, check_measurable
from grounded_seg.train.measure.report import write_report
from grounded_seg.train.settings import TrainSettings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainReport:
    """What came out of a training."""

    folder: TrainFolder
    result: Path
    """The adapter's folder, or with full tuning the model's."""
    figures: Mapping[str, float]
    """Of the validation that was best."""
    n_steps: int
    n_trained: int
    """Numbers that were learnt."""
    faults: tuple[Fault, ...]
    """Rows of the data set that were left out."""
    seconds: float


def train(
    settings: TrainSettings,
    *,
    resume: bool = False,
    watcher: Watcher = lambda _row: None,
    progress: Progress = lambda _done, _all: None,
) -> TrainReport:
    """Train a detector on a data set, and compare it with its base.

    Args:
        settings: What, on what, and how.
        resume: Go on from the last checkpoint in `settings.output`: the losses are those of a training that was never
            interrupted.
        watcher: Told each row of figures as it is written to `metrics.jsonl`.
        progress: Told how many images of the test split each of the two compared models is done with.

    Raises:
        UsageError: If settings don't go together, or the output folder is in use or holds another training.
        InputError: If the data set can't be used; names file and line.
        WeightsError, DeviceError, OutputError: As for a run.
    """
    started = time.monotonic()
    folder = TrainFolder(settings.output)
    learnt = _learn(settings, folder, resume=resume, watcher=watcher)
    # The report loads base and tuned model anew. What was trained goes first; the trainer holds it in circles.
    gc.collect()
    if is_first_process():
        draw_losses(learnt.log.rows, folder.loss_picture)
        test = write_report(settings, learnt.data, progress) if settings.report else {}
        seconds = time.monotonic() - started
        done = {"status": "done", "best": dict(learnt.best), "steps": learnt.n_steps, "seconds": seconds, "test": test}
        folder.write_manifest(learnt.manifest | done)
    return TrainReport(
        folder=folder,
        result=folder.result(settings.method),
        figures={name.removeprefix("valid_"): one for name, one in learnt.best.items() if name.startswith("valid_")},
        n_steps=learnt.n_steps,
        n_trained=learnt.n_trained,
        faults=learnt.data.faults,
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True)
class _Learnt:
    """What is left of a training when its model is gone."""

    data: TrainingData
    manifest: dict[str, Any]
    log: MetricsLog
    best: Row
    n_trained: int

    @property
    def n_steps(self) -> int:
        return int(self.log.rows[-1]["step"]) if self.log.rows else 0


def _learn(settings: TrainSettings, folder: TrainFolder, *, resume: bool, watcher: Watcher) -> _Learnt:
    """Check all that can be checked before, and train."""
    device = resolve_device(settings.models.device)
    if device.type == "cuda" and device.index:
        raise UsageError(f"training takes the first CUDA device; make it that one: CUDA_VISIBLE_DEVICES={device.index}")
    dtype = resolve_dtype(settings.models.dtype, device)
    is_first = is_first_process()
    if not resume and is_first:
        folder.check_free()
    if settings.report and settings.retention is not None:
        check_measurable(settings.retention)
    data = read_training_data(settings.dataset, settings.split, settings.seed, strict=settings.strict)
    base = locate_base(settings)
    florence = load_base(base, settings, device)
    data = without_long_rows(data, florence, settings)
    training = PreparedTraining(settings, folder, base, florence, data, device, dtype)
    manifest = training.manifest()
    if resume:
        folder.check_same(manifest)
    if is_first:
        for line in data.notes:
            _LOG.info("%s", line)
        for line in fault_lines(data.faults):
            _LOG.warning("%s", line)

    def on_start() -> None:
        if is_first:
            folder.write_manifest(manifest | {"status": "running"})

    with out_of_memory_as_device_error("training", "Lower --batch-size, or add --gradient-checkpointing."):
        log = training.run(resume=resume, on_start=on_start, watcher=watcher)
    return _Learnt(data, manifest, log, log.best(training.best_metric) or {}, training.n_trained)
