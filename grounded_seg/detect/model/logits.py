"""Logits in float32 where a model's weights are not.

Half precision costs accuracy where the logits are rounded: bfloat16 keeps 8 bits, so a logit near 20 moves in steps of
an eighth, and with it the score and the place of a box. The whole head in float32 would read twice the bytes, and the
head is a large part of what a step of the decoder reads. So all logits are made in half precision, and those that
matter once more in float32: of the 1000 locations, and of the best few tokens beside them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

N_BEST = 8
"""Tokens beside the locations whose logits are made again, at least: see `be_exact_for`."""


class RoundedHead(nn.Linear):
    """A head whose weights may have fewer bits than float32, and whose logits are float32; its tensors' names stay.

    Args:
        head: In float32; its weights are taken over, not copied, so those tied to them stay tied.
        location_ids: The tokens whose weights are kept in float32 too.
    """

    location_ids: torch.Tensor
    location_rows: torch.Tensor
    """(1000, width)."""

    def __init__(self, head: nn.Linear, location_ids: Sequence[int]) -> None:
        super().__init__(head.in_features, head.out_features, bias=False, device="meta")
        self.weight = head.weight
        ids = torch.tensor(location_ids, device=head.weight.device)
        self.register_buffer("location_ids", ids, persistent=False)
        self.register_buffer("location_rows", head.weight.detach()[ids].clone(), persistent=False)
        self.n_best = N_BEST

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Float32 logits, (..., vocabulary), of states (..., width)."""
        logits, ids = F.linear(states, self.weight).float(), self.location_ids
        exact = states.float()
        # Not the locations: their logits are replaced in any case.
        n_best = min(self.n_best, logits.shape[-1] - len(ids))
        best = logits.index_fill(-1, ids, -torch.inf).topk(n_best, dim=-1).indices
        again = (self.weight[best].float() @ exact[..., None])[..., 0]
        return logits.scatter_(-1, best, again).index_copy_(-1, ids, F.linear(exact, self.location_rows))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "RoundedHead":
        """Move or convert the head, as torch does for `to` and `half`; the locations' rows move, but stay float32."""
        rows = self.location_rows
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.location_rows = rows.to(device=self.location_ids.device)
        return self


def use_float32_logits(network: Any, location_ids: Sequence[int], dtype: torch.dtype) -> None:
    """Convert a Florence-2 in float32 to a dtype of fewer bits, but for its logits, which stay float32.

    The network is changed in place, on its device; the names of its tensors stay. A head that an adapter beside the
    weights tunes stays in float32 as a whole. A network that was converted once may be converted again.
    """
    head = network.lm_head
    if not isinstance(head, nn.Linear):
        # peft's layer, which never shares the word embeddings' matrix.
        network.model.to(dtype=dtype)
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
        return
    if not isinstance(head, RoundedHead):
        network.lm_head = RoundedHead(head, location_ids)
    network.to(dtype=dtype)


def be_exact_for(head: nn.Module, beams: int) -> None:
    """Let a head make as many exact logits as a search with so many beams compares: the best two of each beam."""
    if isinstance(head, RoundedHead):
        head.n_best = max(N_BEST, 2 * beams)
