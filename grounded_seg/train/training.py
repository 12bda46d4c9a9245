"""One training, from a data set to an adapter and a report."""

import gc
import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from grounded_seg.device.memory import out_of_memory_as_device_error
from grounded_seg.train.data.checks import WorkProgress
from grounded_seg.train.data.records import Fault, TrainingData, fault_lines
from grounded_seg.train.fit.loop import Watcher, run_loop
from grounded_seg.train.fit.metrics_log import Row, draw_losses
from grounded_seg.train.fit.preparation import is_first_process, prepare
from grounded_seg.train.folder import TrainFolder
from grounded_seg.train.measure.report import write_report
from grounded_seg.train.recipes import TrainKeywords, settings_or_keywords
from grounded_seg.train.settings import TrainSettings
from grounded_seg.weights.strict_loading import quiet_libraries

_LOG = logging.getLogger(__name__)
_FOR_ALL = {"once": True}
"""Of a line that is shown without a terminal too."""


@dataclass(frozen=True)
class TrainReport:
    """What came out of a training."""

    settings: TrainSettings
    """As they were used; for `evaluate`."""
    folder: TrainFolder
    result: Path
    """The adapter's folder, or with full tuning the model's."""
    figures: Mapping[str, float]
    """Of the validation that was best."""
    n_steps: int
    n_trained: int
    """Trainable parameters."""
    faults: tuple[Fault, ...]
    """Rows of the data set that were left out."""
    seconds: float
    """Of the whole training, also where it was interrupted and resumed."""


@quiet_libraries()
def train(
    settings: TrainSettings | None = None,
    *,
    resume: bool = False,
    watcher: Watcher = lambda _row: None,
    progress: WorkProgress = lambda _what, _done, _all: None,
    **keywords: Unpack[TrainKeywords],
) -> TrainReport:
    """Train a detector on a data set, and compare it with its base.

    Args:
        settings: What, on what, and how; None to give it as keywords.
        resume: Begin at the last checkpoint in `settings.output`: the losses are those of a training that was never
            interrupted.
        watcher: Told each row of figures as it is written to `metrics.jsonl`.
        progress: Told what is counted ("images checked", "steps", "validation batches", "validation images", "test
            images", ...), how many are done, and of how many.
        keywords: Single settings, named as the options of the command: `train(dataset="data", output="tuned",
            preset="base-ft", epochs=3)`; `recipe` and `config` too.

    Raises:
        UsageError: If settings don't go together, the output folder is in use or holds another training, or its
            checkpoint can't be resumed.
        InputError: If the data set can't be used; names file and line.
    """
    settings = settings_or_keywords(settings, keywords)
    folder = TrainFolder(settings.output)
    # torchrun's other processes leave the files to the first.
    with folder.locked() if is_first_process() else nullcontext():
        return _train(settings, folder, resume=resume, watcher=watcher, progress=progress)


def _train(
    settings: TrainSettings, folder: TrainFolder, *, resume: bool, watcher: Watcher, progress: WorkProgress
) -> TrainReport:
    started = time.monotonic() - (folder.seconds_so_far() if resume else 0)
    learnt = _learn(settings, folder, started, resume=resume, watcher=watcher, progress=progress)
    # The report loads base and tuned model anew. What was trained goes first; its modules hold each other in circles.
    gc.collect()
    n_steps = int(learnt.rows[-1]["step"]) if learnt.rows else 0
    seconds = None
    if resume and folder.is_finished(settings, n_steps):
        seconds = folder.seconds_so_far()
        if is_first_process():
            _LOG.info("the training in %s is finished already; nothing is left to do", folder.root, extra=_FOR_ALL)
    elif is_first_process():
        draw_losses(learnt.rows, folder.loss_picture)
        test = write_report(settings, learnt.data, progress) if settings.report else {}
        figures = {"best": dict(learnt.best), "steps": n_steps, "seconds": time.monotonic() - started, "test": test}
        folder.write_manifest(learnt.manifest | {"status": "done"} | figures)
    return TrainReport(
        settings=settings,
        folder=folder,
        result=folder.result(settings.method),
        figures={name.removeprefix("valid_"): one for name, one in learnt.best.items() if name.startswith("valid_")},
        n_steps=n_steps,
        n_trained=learnt.n_trained,
        faults=learnt.data.faults,
        seconds=time.monotonic() - started if seconds is None else seconds,
    )


@dataclass(frozen=True)
class _Learnt:
    """What is left of a training when its model is gone."""

    data: TrainingData
    manifest: dict[str, Any]
    rows: list[Row]
    best: Row
    n_trained: int


def _learn(
    settings: TrainSettings,
    folder: TrainFolder,
    started: float,
    *,
    resume: bool,
    watcher: Watcher,
    progress: WorkProgress,
) -> _Learnt:
    """Check all that can be checked before the first step, and train; `started` is of `time.monotonic`."""
    prepared = prepare(settings, resume=resume, progress=progress)
    data, manifest, is_first = prepared.data, prepared.manifest(), is_first_process()
    if is_first:
        for line in (*prepared.notes, prepared.features.line()):
            _LOG.info("%s", line)
        for line in fault_lines(data.faults):
            _LOG.warning("%s", line)

    def on_files() -> None:
        if is_first:
            folder.write_manifest(manifest | {"status": "running", "seconds": time.monotonic() - started})

    advice = "Lower --batch-size, or add --gradient-checkpointing."
    with out_of_memory_as_device_error("training", advice):
        log, n_trained = run_loop(prepared, resume=resume, on_files=on_files, watcher=watcher, progress=progress)
    return _Learnt(data, manifest, log.rows, log.best(prepared.best_metric) or {}, n_trained)
