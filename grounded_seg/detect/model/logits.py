"""Logits in float32 where a model's weights are not.

Half precision costs accuracy where the logits are rounded: bfloat16 keeps 8 bits, so a logit near 20 moves in steps of
an eighth, and with it the score and the place of a box. The whole head in float32 would read twice the bytes, and the
head is a large part of what a step of the decoder reads. So all logits are made in half precision, and those that
matter once more in float32: of the 1000 locations, and of the best few tokens beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

N_BEST = 8
"""Tokens beside the locations whose logits are made again, at least: as many as four beams compare at each step."""


def use_float32_logits(network: Any, location_ids: Sequence[int], dtype: torch.dtype) -> None:
    """Convert a Florence-2 in float32 to a dtype of fewer bits, but for its logits, which stay float32.

    The network is changed in place, on its device; the names of its tensors stay. A head that an adapter beside the
    weights tunes stays in float32 as a whole. What was converted once takes the dtype and keeps its exact locations.
    """
    head = network.lm_head
    if _of(network) is not None:
        network.to(dtype=dtype)
        return
    if not isinstance(head, nn.Linear):
        # peft's layer, which never shares the word embeddings' matrix.
        network.model.to(dtype=dtype)
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
        return
    ids = torch.tensor(location_ids, device=head.weight.device)
    rows = head.weight.detach()[ids].clone()
    network.to(dtype=dtype)
    head.forward = _Float32Logits(head, ids, rows)


def compare_in_float32(network: Any, beams: int) -> None:
    """Make as many logits again as so many beams compare: transformers takes twice as many tokens as beams."""
    logits = _of(network)
    if logits is not None:
        logits.n_best = max(N_BEST, 2 * beams)


@dataclass(eq=False)
class _Float32Logits:
    """The `forward` of a head in half precision."""

    head: nn.Linear
    ids: torch.Tensor
    """The locations."""
    rows: torch.Tensor
    """Their weights in float32, (1000, width)."""
    n_best: int = N_BEST

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Float32 logits, (..., vocabulary), of states (..., width)."""
        if self.rows.device != states.device:
            # They are no tensors of the network, which may have been moved since.
            self.ids, self.rows = self.ids.to(states.device), self.rows.to(states.device)
        logits = F.linear(states, self.head.weight).float()
        exact = states.float()
        # Not the locations: their logits are replaced in any case.
        n_best = min(self.n_best, logits.shape[-1] - len(self.ids))
        best = logits.index_fill(-1, self.ids, -torch.inf).topk(n_best, dim=-1).indices
        again = (self.head.weight[best].float() @ exact[..., None])[..., 0]
        return logits.scatter_(-1, best, again).index_copy_(-1, self.ids, F.linear(exact, self.rows))


def _of(network: Any) -> _Float32Logits | None:
    forward = vars(network.lm_head).get("forward")
    return forward if isinstance(forward, _Float32Logits) else None
