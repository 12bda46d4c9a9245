"""What the demo's detector is taught by: its answers, and helpers that are dropped after training."""

import torch
import torch.nn.functional as F  # noqa: N812
from demo_model import GRID, WIDTH
from pool import COLOUR_NAMES, KIND_NAMES
from questions import Batch
from torch import nn

SPREAD = torch.arange(-14, 15)
SPREAD_BINS = 3.0
N_KINDS, N_COLOURS, N_BINS = len(KIND_NAMES), len(COLOUR_NAMES), 1000
OFFSET, EXTENT = 0.1, 0.25
"""Units of a cell's guess at its object's box: centre's distance from the cell and size, as shares of the image."""


class Heads(nn.Module):
    """Dense heads that teach the model where things are; they are not part of the demo."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(WIDTH, 1 + N_KINDS + N_COLOURS + 4)
        """On the image's features: some object is here, its kind, its colour, its box."""
        self.hit = nn.Linear(WIDTH, 1)
        """On the encoded image tokens: the object here answers the question."""
        self.place = nn.Linear(WIDTH, 4)
        """On the encoded image tokens: the box of the object here, as shares of the image."""
        x, y = torch.meshgrid((torch.arange(GRID) + 0.5) / GRID, (torch.arange(GRID) + 0.5) / GRID, indexing="xy")
        self.register_buffer("centres", torch.stack([x.flatten(), y.flatten()], 1))

    def boxes(self, guessed: torch.Tensor) -> torch.Tensor:
        """Each cell's box as shares of the image: (b, GRID * GRID, 4) of the last four outputs of `cell`."""
        centre = self.centres + OFFSET * guessed[..., :2]
        half = EXTENT / 2 * F.softplus(guessed[..., 2:])
        return torch.cat([centre - half, centre + half], -1)


def generalized_iou(boxes: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """GIoU (arXiv 1902.09630) of box pairs: (n,) in (-1, 1] of (n, 4) and (n, 4)."""
    lower, upper = torch.maximum(boxes[:, :2], truth[:, :2]), torch.minimum(boxes[:, 2:], truth[:, 2:])
    overlap = (upper - lower).clamp(min=0).prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (truth[:, 2:] - truth[:, :2]).prod(1) - overlap
    lowest, highest = torch.minimum(boxes[:, :2], truth[:, :2]), torch.maximum(boxes[:, 2:], truth[:, 2:])
    hull = (highest - lowest).prod(1)
    return overlap / union - (hull - union) / hull


def cell_losses(heads: Heads, features: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
    """Presence, kind, colour and box in each image cell, of features (b, 1 + GRID * GRID, width); and the values."""
    out = heads.cell(features[:, 1:])
    here = batch.owner >= 0
    kind, colour = out[here][:, 1 : 1 + N_KINDS], out[here][:, 1 + N_KINDS : 1 + N_KINDS + N_COLOURS]
    truth, boxes = batch.cell_boxes[here], heads.boxes(out[..., -4:])[here]
    overlap = generalized_iou(boxes, truth)
    presence = F.binary_cross_entropy_with_logits(out[..., 0], here.float())
    name = F.cross_entropy(kind, batch.cell_kinds[here]) + F.cross_entropy(colour, batch.cell_colours[here])
    total = 3 * presence + name + 2 * (1 - overlap).mean() + 4 * F.l1_loss(boxes, truth)
    return total, {"presence": presence.item(), "name": name.item(), "giou": overlap.mean().item()}


def hit_loss(heads: Heads, encoded: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Which cells answer the question."""
    return F.binary_cross_entropy_with_logits(heads.hit(encoded[:, 1:])[..., 0], batch.asked)


def place_loss(heads: Heads, encoded: torch.Tensor, batch: Batch) -> torch.Tensor:
    """How far off the cells with an object are about its box in the whole image; the decoder takes it from there."""
    n_questions = len(encoded) // len(batch.owner)
    here = (batch.owner >= 0).repeat_interleave(n_questions, 0)
    truth = batch.cell_boxes.repeat_interleave(n_questions, 0)[here]
    return F.l1_loss(heads.place(encoded[:, 1:])[here], truth)


def spread_log_likelihood(logp: torch.Tensor, target: torch.Tensor, loc0: int) -> torch.Tensor:
    """Mean log probability around each target location: (n,) of (n, vocabulary) with location 0 at `loc0`."""
    near = (target[:, None] + SPREAD).clamp(loc0, loc0 + N_BINS - 1)
    return (logp.gather(1, near) * torch.softmax(-0.5 * (SPREAD / SPREAD_BINS) ** 2, 0)).sum(1)


def answer_loss(logits: torch.Tensor, labels: torch.Tensor, loc0: int) -> torch.Tensor:
    """Cross-entropy, each location target spread over its neighbours; the first token, which says yes or no, twice."""
    keep = labels >= 0
    first = torch.zeros_like(keep)
    first[:, 0] = True
    weight = (1.0 + first.float())[keep]
    logp, target = logits.float().log_softmax(-1)[keep], labels[keep]
    located = (target >= loc0) & (target < loc0 + N_BINS)
    loss = -(logp.gather(1, target[:, None])[:, 0])
    loss = loss.masked_scatter(located, -spread_log_likelihood(logp[located], target[located], loc0))
    return (loss * weight).sum() / weight.sum()


def pointing_loss(looked: torch.Tensor, batch: Batch) -> torch.Tensor:
    """How little the decoder looks at the cells of the object whose box it is saying (the first token is no cell)."""
    n_questions = len(looked) // len(batch.owner)
    owner = batch.owner.repeat_interleave(n_questions, 0)
    here = batch.pointed >= 0
    on_object = owner[:, None, :] == batch.pointed[:, :, None]
    share = (looked[..., 1:] * on_object).sum(-1)[here & on_object.any(-1)]
    return -(share + 1e-4).log().mean() if len(share) else looked.sum() * 0
