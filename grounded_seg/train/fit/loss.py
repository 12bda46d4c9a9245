"""The loss of answers: cross-entropy of their tokens, a location's target spread over its neighbours where asked."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from grounded_seg.train.data.samples import IGNORED

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
        offsets = torch.arange(-reach, reach + 1)
        self._spreads = spread_bins > 0
        self.register_buffer("_ids", torch.tensor(location_ids), persistent=False)
        self.register_buffer("_offsets", offsets, persistent=False)
        shares = torch.softmax(-0.5 * (offsets / max(spread_bins, 1e-6)) ** 2, 0)
        self.register_buffer("_shares", shares, persistent=False)
        bins = torch.full((max(location_ids) + 1,), -1)
        bins[torch.tensor(location_ids)] = torch.arange(len(location_ids))
        self.register_buffer("_bin_by_id", bins, persistent=False)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the sum, in float32.

        Args:
            logits: (n, t, vocabulary), of the token at the same place.
            labels: (n, t) token ids, -100 for padding.
        """
        if not self._spreads:
            return functional.cross_entropy(
                logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
            )
        is_token = labels != IGNORED
        log_probabilities, targets = logits[is_token].float().log_softmax(-1), labels[is_token]
        bins = self._bin_by_id[targets.clamp(max=len(self._bin_by_id) - 1)]
        bins = torch.where(targets < len(self._bin_by_id), bins, -1)
        is_location = bins >= 0
        near = self._ids[(bins[is_location, None] + self._offsets).clamp(0, len(self._ids) - 1)]
        spread = (log_probabilities[is_location].gather(1, near) * self._shares).sum()
        exact = log_probabilities[~is_location].gather(1, targets[~is_location, None]).sum()
        return -(spread + exact)
