"""When a training validates, saves and stops, and what it writes down."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from grounded_seg.errors import UsageError
from grounded_seg.train.fit.curves import draw_losses
from grounded_seg.train.folder import MetricsLog, Row
from grounded_seg.train.measure.validation import Validation
from grounded_seg.train.settings import TrainSettings

SaveBest = Callable[[], None]
Watcher = Callable[[Row], None]


class Rhythm(TrainerCallback):  # type: ignore[misc]
    """Says when to validate, save and stop: at steps as asked, and at the end of every epoch."""

    def __init__(self, settings: TrainSettings, validation: Validation, log: MetricsLog, best_metric: str) -> None:
        self._settings = settings
        self._validation = validation
        self._log = log
        self._best_metric = best_metric

    def on_step_begin(self, _args: object, _state: object, _control: object, **_: Any) -> None:
        """Generate nothing between epochs."""
        self._validation.generates = False

    def on_step_end(self, _args: object, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Validate and save between epochs, where asked."""
        if control.should_training_stop or float(state.epoch).is_integer():
            # The end of the epoch does both in a moment.
            control.should_evaluate = control.should_save = False
            return
        control.should_evaluate = bool(self._settings.eval_steps) and state.global_step % self._settings.eval_steps == 0
        control.should_save = bool(self._settings.save_steps) and state.global_step % self._settings.save_steps == 0

    def on_epoch_end(self, _args: object, _state: object, control: TrainerControl, **_: Any) -> None:
        """Validate, with answers, and save."""
        self._validation.generates = True
        control.should_evaluate = control.should_save = True

    def on_evaluate(self, _args: object, _state: object, control: TrainerControl, **_: Any) -> None:
        """Stop where nothing gets better any more."""
        patience = self._settings.patience
        if patience is not None and self._validation.generates:
            control.should_training_stop = self._log.epochs_since_best(self._best_metric) >= patience


class Keeper(TrainerCallback):  # type: ignore[misc]
    """Writes the figures down and draws them, and keeps the weights whenever they are the best so far."""

    def __init__(
        self,
        log: MetricsLog,
        picture: Path,
        best_metric: str,
        save_best: SaveBest,
        on_start: Callable[[], None],
        watcher: Watcher,
    ) -> None:
        self._log = log
        self._picture = picture
        self._best_metric = best_metric
        self._save_best = save_best
        self._on_start = on_start
        self._watcher = watcher

    def on_train_begin(self, _args: object, _state: object, _control: object, **_: Any) -> None:
        """Leave the first traces: the library has made optimizer and schedule, so that nothing is refused any more."""
        self._on_start()
        self._log.start()

    def on_evaluate(self, _args: object, state: TrainerState, _control: object, **_: Any) -> None:
        """Draw the curves so far."""
        if state.is_world_process_zero:
            draw_losses(self._log.rows, self._picture)

    def on_log(
        self,
        _args: object,
        state: TrainerState,
        _control: object,
        logs: Mapping[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Add a line to `metrics.jsonl`.

        Raises:
            UsageError: If the loss is no number any more.
        """
        figures = dict(logs or {})
        if not {"loss", "valid_loss"} & figures.keys():
            return
        if figures.get("loss") is not None and not torch.isfinite(torch.tensor(figures["loss"])):
            raise UsageError(
                f"the loss is {figures['loss']} at step {state.global_step}; lower --lr, or train with --dtype float32"
            )
        row = {"step": state.global_step, **figures}
        self._log.add(row)
        if not state.is_world_process_zero:
            return
        self._watcher(row)
        best = self._log.best(self._best_metric)
        if best is not None and best["step"] == state.global_step and f"valid_{self._best_metric}" in row:
            self._save_best()
