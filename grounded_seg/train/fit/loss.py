"""The loss of a batch, and the validation: the loss of fixed questions and the figures of generated answers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from transformers.models.florence2.modeling_florence2 import shift_tokens_right

from grounded_seg.train.data.checks import WorkProgress
from grounded_seg.train.data.read_ahead import Batch
from grounded_seg.train.data.records import Question
from grounded_seg.train.data.samples import ABOUT_IMAGES, IGNORED
from grounded_seg.train.fit.feature_store import FeatureStore
from grounded_seg.train.fit.features import ImageFeatures
from grounded_seg.train.fit.preparation import PreparedTraining
from grounded_seg.train.measure.answers import answer_limit, answered, question_batches
from grounded_seg.train.measure.metrics import Answered, figures_of

_REACH = 4
"""How far a target is spread, in standard deviations."""


class AnswerLoss(nn.Module):
    """Sums the loss over all tokens of a batch."""

    _ids: torch.Tensor
    _offsets: torch.Tensor
    _shares: torch.Tensor
    _bin_by_id: torch.Tensor

    def __init__(self, location_ids: Sequence[int], spread_bins: float = 0.0) -> None:
        """Prepare the loss.

        Args:
            location_ids: Token id of each location bin, in order.
            spread_bins: Standard deviation of the Gaussian that a location's target becomes, in bins: a bin beside the
                right one is nearly right. 0 for the right bin alone, as Florence-2 was trained.
        """
        super().__init__()
        reach = round(_REACH * spread_bins)
        ids, offsets = torch.tensor(location_ids), torch.arange(-reach, reach + 1)
        bins = torch.full((max(location_ids) + 1,), -1)
        bins[ids] = torch.arange(len(ids))
        shares = torch.softmax(-0.5 * (offsets / max(spread_bins, 1e-6)) ** 2, 0)
        self._spreads = spread_bins > 0
        for name, values in (("_ids", ids), ("_offsets", offsets), ("_shares", shares), ("_bin_by_id", bins)):
            self.register_buffer(name, values, persistent=False)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum in float32 from logits (n, vocabulary) and token ids (n,)."""
        if not self._spreads:
            return functional.cross_entropy(logits.float(), targets, reduction="sum")
        log_probabilities = logits.float().log_softmax(-1)
        bins = self._bin_by_id[targets.clamp(max=len(self._bin_by_id) - 1)]
        bins = torch.where(targets < len(self._bin_by_id), bins, -1)
        is_location = bins >= 0
        near = self._ids[(bins[is_location, None] + self._offsets).clamp(0, len(self._ids) - 1)]
        spread = (log_probabilities[is_location].gather(1, near) * self._shares).sum()
        exact = log_probabilities[~is_location].gather(1, targets[~is_location, None]).sum()
        return -(spread + exact)


class BatchLoss:
    """The loss of a batch, summed over its tokens, at the activations' dtype."""

    def __init__(self, prepared: PreparedTraining, store: FeatureStore) -> None:
        settings, florence = prepared.settings, prepared.florence
        self._network = florence.network
        encoded = prepared.features.images
        self._features = ImageFeatures(florence, settings.parts, prepared.images, encoded, store)
        self._device, self._dtype = prepared.device, prepared.dtype
        self._loss = AnswerLoss(florence.vocabulary.location_ids, settings.location_spread).to(self._device)

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Compute the loss with the model of `make_trainable`, or that wrapped for several processes."""
        # A GPU would have to be waited for, to read from it which images these are.
        here = {
            name: values if name in ABOUT_IMAGES else values.to(self._device, non_blocking=True)
            for name, values in batch.items()
        }
        loss: torch.Tensor = self._loss(self._logits(model, here), here["labels"].flatten()[here["label_places"]])
        return loss

    def train_mode(self, model: nn.Module) -> None:
        """Switch on dropout, but for a vision tower that isn't trained."""
        model.train()
        self._features.train_mode()

    def image_tokens(self, question: Question) -> torch.Tensor:
        """The image tokens of a question as the loss has them, (1, n_image_tokens, width)."""
        with self._autocast():
            return self._features.of_question(question)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not torch.float32)

    def _logits(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The decoder's logits for the answers' tokens, (n, vocabulary); each image is encoded once."""
        network = self._network
        with self._autocast():
            features = self._features.of_batch(batch)[batch["image_index"]]
        words = network.get_input_embeddings()(batch["input_ids"])
        text = network.config.text_config
        # The native forward would shift the labels too, but then compute the loss a second time.
        answers = shift_tokens_right(batch["labels"], text.pad_token_id, text.decoder_start_token_id)
        mask = batch["attention_mask"]
        with self._autocast(), _only_for(batch["label_places"], network.lm_head):
            logits: torch.Tensor = model(
                inputs_embeds=torch.cat([features.to(words.dtype), words], dim=1),
                attention_mask=torch.cat([mask.new_ones(features.shape[:2]), mask], dim=1),
                decoder_input_ids=answers,
                use_cache=False,
            ).logits
        return logits


@contextmanager
def _only_for(places: torch.Tensor, head: nn.Module) -> Iterator[None]:
    """Let the head see the states at these places of (n, t, width), flat: a batch's padding has no logits."""
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].flatten(0, 1)[places], *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


def validate(
    prepared: PreparedTraining,
    model: nn.Module,
    loss: BatchLoss,
    accelerator: Accelerator,
    progress: WorkProgress,
    *,
    with_answers: bool,
) -> dict[str, float]:
    """Measure the loss, and generate and measure the answers where asked; each process takes its share.

    `model`, not wrapped for several processes, computes the loss. The figures are the same on all processes.
    """
    model.eval()
    with torch.no_grad():
        figures = {"loss": _mean_loss(prepared, model, loss, accelerator, progress)}
        answers = _answers(prepared, loss, accelerator, progress) if with_answers else []
    if with_answers and accelerator.is_main_process:
        figures |= figures_of(answers, prepared.settings.metrics)
    # Every process decides alike when to stop, also where a metric of the caller's isn't the same twice.
    return dict(broadcast_object_list([figures])[0])


def _mean_loss(
    prepared: PreparedTraining, model: nn.Module, loss: BatchLoss, accelerator: Accelerator, progress: WorkProgress
) -> float:
    dataset = prepared.valid_dataset
    indices = BatchSampler(SequentialSampler(dataset), prepared.settings.batch_size, drop_last=False)
    own = list(enumerate(indices))[accelerator.process_index :: accelerator.num_processes]
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=[some for _, some in own], collate_fn=prepared.collator)
    found = []
    for (number, _), batch in zip(own, loader, strict=True):
        n_tokens = int((batch["labels"] != IGNORED).sum())
        found.append((number, float(loss(model, batch) / n_tokens) * n_tokens, n_tokens))
        progress("validation batches", len(found), len(own))
    # Summed in the batches' order, however many processes there are.
    ordered: list[tuple[int, float, int]] = sorted(gather_object(found))
    return sum(total for _, total, _ in ordered) / max(1, sum(n for _, _, n in ordered))


def _answers(
    prepared: PreparedTraining, loss: BatchLoss, accelerator: Accelerator, progress: WorkProgress
) -> list[Answered]:
    batches = question_batches(prepared.asked)
    limit = answer_limit(prepared.florence, prepared.asked)
    own = range(accelerator.process_index, len(batches), accelerator.num_processes)
    n_own, n_done = sum(map(_n_images, (batches[number] for number in own))), 0
    found = []
    for number in own:
        answers = answered(prepared.florence, batches[number], prepared.images, limit, loss.image_tokens)
        found.append((number, answers))
        n_done += _n_images(batches[number])
        progress("validation images", n_done, n_own)
    ordered: Mapping[int, list[Answered]] = dict(gather_object(found))
    return [one for number in range(len(batches)) for one in ordered[number]]


def _n_images(questions: Sequence[Question]) -> int:
    return len({question.example.image for question in questions})
