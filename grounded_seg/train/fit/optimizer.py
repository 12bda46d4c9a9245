"""The optimizer and its learning rate schedule."""

from functools import partial

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from grounded_seg.errors import UsageError
from grounded_seg.train.settings import OptimizerName, Schedule, TrainSettings

_BY_TRANSFORMERS = {
    Schedule.COSINE: "cosine",
    Schedule.LINEAR: "linear",
    Schedule.CONSTANT: "constant_with_warmup",
}


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Make the optimizer of the trainable parameters; `UsageError` if its package isn't installed."""
    groups = _weight_decay_groups(model, settings.weight_decay)
    if settings.optimizer is OptimizerName.ADAMW:
        return torch.optim.AdamW(groups, lr=settings.lr)
    try:
        from pytorch_optimizer import CAME
    except ImportError as error:
        raise UsageError("the optimizer came needs a package: pip install 'grounded-seg[train]'") from error
    optimizer: torch.optim.Optimizer = CAME(groups, lr=settings.lr)
    return optimizer


def make_schedule(optimizer: torch.optim.Optimizer, settings: TrainSettings, n_steps: int) -> LambdaLR:
    """Make the schedule of a training of so many steps; `UsageError` if the warm-up is as long as the training."""
    if settings.warmup_steps >= n_steps:
        raise UsageError(
            f"warmup-steps is {settings.warmup_steps}, and the whole training has {n_steps}; give fewer, or more epochs"
        )
    if settings.schedule is Schedule.REX:
        return LambdaLR(optimizer, partial(rex_share, n_warmup=settings.warmup_steps, n_steps=n_steps))
    schedule: LambdaLR = get_scheduler(
        _BY_TRANSFORMERS[settings.schedule],
        optimizer=optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=n_steps,
    )
    return schedule


def rex_share(step: int, *, n_warmup: int, n_steps: int) -> float:
    """Give the share of the highest rate at a step: REX (arXiv 2107.04197, equation 2) after a linear warm-up.

    >>> rex_share(50, n_warmup=0, n_steps=100)
    0.6666666666666667
    """
    if step < n_warmup:
        return step / n_warmup
    left = 1 - min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))
    return left / (0.5 + 0.5 * left)


def _weight_decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split the trainable parameters into matrices, which decay, and biases and norms, which don't."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [one for one in learning if one.dim() > 1], "weight_decay": weight_decay},
        {"params": [one for one in learning if one.dim() <= 1], "weight_decay": 0.0},
    ]
