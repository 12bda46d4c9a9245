"""Validation: the loss of fixed questions, and the answers to questions about every class, shared by all processes."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from grounded_seg.train.data.samples import IGNORED
from grounded_seg.train.fit.loss import BatchLoss
from grounded_seg.train.fit.preparation import PreparedTraining
from grounded_seg.train.measure.answers import answered
from grounded_seg.train.measure.metrics import Answered, figures_of


def validate(
    prepared: PreparedTraining, model: nn.Module, loss: BatchLoss, accelerator: Accelerator, *, with_answers: bool
) -> dict[str, float]:
    """Measure the loss, and generate and measure the answers where asked; each process takes its share.

    `model`, not wrapped for several processes, computes the loss. The figures are the same on all processes.
    """
    model.eval()
    with torch.no_grad():
        figures = {"loss": _mean_loss(prepared, model, loss, accelerator)}
        answers = _answers(prepared, accelerator) if with_answers else []
    if with_answers and accelerator.is_main_process:
        figures |= figures_of(answers, prepared.settings.metrics)
    # Every process decides alike when to stop, also where a metric of the caller's isn't the same twice.
    return dict(broadcast_object_list([figures])[0])


def _mean_loss(prepared: PreparedTraining, model: nn.Module, loss: BatchLoss, accelerator: Accelerator) -> float:
    dataset = prepared.valid_dataset
    indices = BatchSampler(SequentialSampler(dataset), prepared.settings.batch_size, drop_last=False)
    own = list(enumerate(indices))[accelerator.process_index :: accelerator.num_processes]
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=[some for _, some in own], collate_fn=prepared.collator)
    found = []
    for (number, _), batch in zip(own, loader, strict=True):
        n_tokens = int((batch["labels"] != IGNORED).sum())
        found.append((number, float(loss(model, batch) / n_tokens) * n_tokens, n_tokens))
    # Summed in the batches' order, however many processes there are.
    ordered: list[tuple[int, float, int]] = sorted(gather_object(found))
    return sum(total for _, total, _ in ordered) / max(1, sum(n for _, _, n in ordered))


def _answers(prepared: PreparedTraining, accelerator: Accelerator) -> list[Answered]:
    by_image = [list(group) for _, group in groupby(prepared.asked, key=lambda question: question.example.image)]
    own = range(accelerator.process_index, len(by_image), accelerator.num_processes)
    found = [(number, list(answered(prepared.florence, by_image[number], prepared.images))) for number in own]
    ordered: Mapping[int, list[Answered]] = dict(gather_object(found))
    return [one for number in range(len(by_image)) for one in ordered[number]]
