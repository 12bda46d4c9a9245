"""The training loop, from the first step to the last.

An epoch has steps, and a step has passes: each pass is one batch on each process, and a step's gradients are those of
the mean loss over all its tokens, however many passes and processes make it.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, skip_first_batches
from accelerate.utils import set_seed
from torch import nn

from grounded_seg.errors import UsageError
from grounded_seg.train.data.checks import WorkProgress
from grounded_seg.train.data.read_ahead import Batch, lost_workers_explained, make_loader, received
from grounded_seg.train.data.samples import IGNORED
from grounded_seg.train.fit.checkpoints import (
    Checkpoint,
    TrainState,
    last_checkpoint,
    load_checkpoint,
    load_random_state,
    save_checkpoint,
    save_trained,
)
from grounded_seg.train.fit.feature_store import FeatureStore, memory_for_features
from grounded_seg.train.fit.loss import BatchLoss, validate
from grounded_seg.train.fit.metrics_log import MetricsLog, Row, draw_losses
from grounded_seg.train.fit.preparation import PreparedTraining, n_processes
from grounded_seg.train.fit.trainable import make_optimizer, make_schedule, make_trainable, n_trainable
from grounded_seg.train.settings import Method, Quantization

Watcher = Callable[[Row], None]


class _Loop:
    """What stays the same from step to step."""

    def __init__(
        self,
        prepared: PreparedTraining,
        accelerator: Accelerator,
        model: nn.Module,
        log: MetricsLog,
        watcher: Watcher,
        progress: WorkProgress,
        store: FeatureStore,
    ) -> None:
        """Make the loader, the optimizer and its schedule, at the first step."""
        settings, device = prepared.settings, prepared.device
        self.prepared, self.accelerator, self.log = prepared, accelerator, log
        self.watcher, self.progress = watcher, progress
        if settings.quantization is Quantization.NONE:
            model = model.to(device)
        # Without a sampler: the questions in the plan's order, which is shuffled anew for each epoch.
        loader = make_loader(
            prepared.dataset,
            prepared.collator,
            batch_size=settings.batch_size,
            workers=settings.workers,
            pins=device.type == "cuda",
        )
        self.loader: Any = accelerator.prepare_data_loader(loader)
        """Of this process's batches of an epoch."""
        optimizer = make_optimizer(model, settings)
        schedule = make_schedule(optimizer, settings, prepared.n_steps)
        scaler = torch.amp.GradScaler(device.type, enabled=prepared.dtype is torch.float16)
        self.state = TrainState(model, optimizer, schedule, scaler)
        self.wrapped: nn.Module = accelerator.prepare_model(model)
        """The model, wrapped for several processes."""
        self.loss = BatchLoss(prepared, store)


def run_loop(
    prepared: PreparedTraining,
    *,
    resume: bool,
    on_files: Callable[[], None],
    watcher: Watcher,
    progress: WorkProgress,
) -> tuple[MetricsLog, int]:
    """Train to the end, from the last checkpoint on where asked; give the log and the number of trainable parameters.

    `on_files` is called after the first step, right before the first file: a start that fails leaves nothing. And after
    each checkpoint.

    Raises:
        UsageError: If a checkpoint can't be resumed, or the loss is no number any more.
    """
    settings, folder = prepared.settings, prepared.folder
    accelerator = _accelerator(prepared)
    set_seed(settings.seed)
    model = make_trainable(prepared.florence.network, settings)
    checkpoint = last_checkpoint(folder.checkpoints) if resume else None
    step = 0 if checkpoint is None else checkpoint.step
    log = MetricsLog(folder.metrics, step, writes=accelerator.is_main_process, lower_is_better=prepared.lower_is_better)
    if checkpoint is not None and _is_out_of_patience(prepared, log):
        return log, n_trainable(model)
    set_seed(settings.seed)
    with FeatureStore(folder.root, memory_for_features(), keeps=prepared.features.keeps) as store:
        loop = _Loop(prepared, accelerator, model, log, watcher, progress, store)
        if checkpoint is not None:
            load_checkpoint(checkpoint, loop.state)
        accelerator.wait_for_everyone()
        with lost_workers_explained(settings.workers):
            _take_steps(loop, step, checkpoint, on_files)
    for tracker in accelerator.trackers:
        tracker.finish()
    return log, n_trainable(model)


def _take_steps(loop: _Loop, step: int, checkpoint: Checkpoint | None, on_files: Callable[[], None]) -> None:
    """Take all steps after those of the checkpoint, and validate and save in between."""
    prepared, accelerator, progress = loop.prepared, loop.accelerator, loop.progress
    settings, folder = prepared.settings, prepared.folder
    has_begun = is_over = False
    while step < prepared.n_steps and not is_over:
        epoch, n_done = divmod(step, prepared.steps_per_epoch)
        for passes in _steps(loop, epoch, n_done, checkpoint):
            checkpoint = None
            step, n_done = step + 1, n_done + 1
            n_passes = min(n_done * settings.accumulation, prepared.passes_per_epoch)
            figures = _take_step(loop, passes, step)
            if not has_begun:
                _begin(loop, on_files)
                has_begun = True
            row = {"step": step, **figures, "epoch": epoch + n_passes / prepared.passes_per_epoch}
            _write_down(loop, row)
            progress("steps", step, prepared.n_steps)
            if step == prepared.n_steps or n_done == prepared.steps_per_epoch:
                break
            if settings.eval_steps and step % settings.eval_steps == 0:
                _measure(loop, row, with_answers=False)
            if settings.save_steps and step % settings.save_steps == 0:
                save_checkpoint(folder.checkpoints, step, loop.state, accelerator, keep=settings.keep)
                on_files()
        _measure(loop, row, with_answers=True)
        is_over = _is_out_of_patience(prepared, loop.log)
        save_checkpoint(folder.checkpoints, step, loop.state, accelerator, keep=settings.keep)
        on_files()


def _begin(loop: _Loop, on_files: Callable[[], None]) -> None:
    """Write the first files, and start the loggers."""
    on_files()
    loop.log.start()
    loop.accelerator.init_trackers(os.environ.get("WANDB_PROJECT", "grounded-seg"))


def _accelerator(prepared: PreparedTraining) -> Accelerator:
    """Join the other processes of this training, and the loggers; device and dtype are ours to handle."""
    settings = prepared.settings
    loggers = sorted(map(str, settings.log_to))
    # Looking for unused parameters breaks gradient checkpointing of the weights themselves.
    find_unused = settings.method is Method.LORA or not settings.gradient_checkpointing
    return Accelerator(
        device_placement=False,
        mixed_precision="no",
        # A process by itself needs no device of accelerate's, which can't be changed in one program.
        cpu=prepared.device.type == "cpu" and n_processes() > 1,
        log_with=loggers or None,
        project_dir=prepared.folder.checkpoints / "runs",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=find_unused)],
    )


def _steps(loop: _Loop, epoch: int, n_done: int, checkpoint: Checkpoint | None) -> Iterator[Sequence[Batch]]:
    """Give the passes of each step of an epoch, after those that were done before the checkpoint."""
    n_passes = loop.prepared.settings.accumulation
    batches = skip_first_batches(loop.loader, n_done * n_passes) if n_done else loop.loader
    # Before accelerate 1.15 a loader that skips doesn't take the epoch of the other one.
    batches.set_epoch(epoch)
    # A loader draws a number when it begins: within an epoch that was before the checkpoint, at its start it is after.
    if checkpoint is not None and not n_done:
        load_random_state(checkpoint, loop.accelerator.process_index)
    iterator = received(batches, loop.prepared.settings.workers)
    while passes := list(islice(iterator, n_passes)):
        if checkpoint is not None and n_done:
            load_random_state(checkpoint, loop.accelerator.process_index)
        checkpoint = None
        yield passes


def _take_step(loop: _Loop, passes: Sequence[Batch], step: int) -> dict[str, float]:
    """Change the weights once; give the mean loss, the gradients' norm before clipping and the learning rate."""
    accelerator, state = loop.accelerator, loop.state
    loop.loss.train_mode(loop.wrapped)
    device = loop.prepared.device
    n_own = sum(int((batch["labels"] != IGNORED).sum()) for batch in passes)
    n_tokens = accelerator.reduce(torch.tensor(n_own, device=device), "sum")
    total = torch.zeros((), device=device)
    for number, batch in enumerate(passes, start=1):
        with nullcontext() if number == len(passes) else accelerator.no_sync(loop.wrapped):
            # The processes' gradients are averaged, and each has counted the tokens of all.
            loss = loop.loss(loop.wrapped, batch) / n_tokens * accelerator.num_processes
            state.scaler.scale(loss).backward()
        total += loss.detach()
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(loop.wrapped.parameters(), loop.prepared.settings.max_grad_norm)
    figures = {
        "loss": accelerator.reduce(total, "mean").item(),
        "grad_norm": norm.item(),
        "learning_rate": state.schedule.get_last_lr()[0],
    }
    if not math.isfinite(figures["loss"]):
        raise UsageError(f"the loss is {figures['loss']} at step {step}; lower --lr, or train with --dtype float32")
    scale = state.scaler.get_scale()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    # Where a gradient of float16 overflowed, the step was left out and the scale lowered.
    if state.scaler.get_scale() >= scale:
        state.schedule.step()
    loop.wrapped.zero_grad()
    return figures


def _measure(loop: _Loop, row: Row, *, with_answers: bool) -> None:
    """Validate, write the figures down and draw them, and keep the weights if they are the best so far."""
    prepared, log = loop.prepared, loop.log
    model, accelerator = loop.state.model, loop.accelerator
    figures = validate(prepared, model, loop.loss, accelerator, loop.progress, with_answers=with_answers)
    measured = {f"valid_{name}": value for name, value in figures.items()}
    _write_down(loop, {"step": row["step"], **measured, "epoch": row["epoch"]})
    if not accelerator.is_main_process:
        return
    best = log.best(prepared.best_metric)
    if best is not None and best["step"] == row["step"] and prepared.best_metric in figures:
        save_trained(model, prepared, figures)
    draw_losses(log.rows, prepared.folder.loss_picture)


def _write_down(loop: _Loop, row: Row) -> None:
    """Add a row to `metrics.jsonl` and tell the loggers and the watcher."""
    loop.log.add(row)
    figures = {f"train/{name}": value for name, value in row.items() if name != "step"}
    loop.accelerator.log(figures, step=int(row["step"]))
    if loop.accelerator.is_main_process:
        loop.watcher(row)


def _is_out_of_patience(prepared: PreparedTraining, log: MetricsLog) -> bool:
    """Tell whether the training stops early; on resuming, that it had been and only its report was missing."""
    patience = prepared.settings.patience
    return patience is not None and log.epochs_since_best(prepared.best_metric) >= patience
