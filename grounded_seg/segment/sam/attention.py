"""Exact attention for Segment Anything's image encoder, without a table of every patch against every other.

The encoder adds to each score q·k a term for the distance in rows and one for that in columns, both linear in q
(decomposed relative positions, arXiv 2112.01526). The original stores all scores: 4096 x 4096 per head and image. Here
each query is lengthened by its terms for every row and every column, and each key by two ones that select its own:

    (q * scale, rows(q), columns(q)) · (k, one-hot(row), one-hot(column))
        = q·k * scale + rows(q)[row] + columns(q)[column]

so that the fused attention of torch gives the same numbers in memory that grows with the patches, not their square.

On a GPU, and on a CPU with AMX in bfloat16, that is the fastest. Elsewhere the added channels cost time: there the
scores are computed a block at a time, small enough for the caches, in half the time. `device.kernels` chooses.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from grounded_seg.device.kernels import AttentionKernel, score_blocks
from grounded_seg.segment.sam.modules import ImageEncoderViT


def use_fast_attention(encoder: ImageEncoderViT, kernel: AttentionKernel) -> None:
    """Let the blocks of this encoder attend by this kernel; weights and outputs stay the same, up to rounding."""
    for block in encoder.blocks:
        block.attn.forward = partial(attend_with_positions, block.attn, block.attn.num_heads, kernel)


def lay_out_patches(patch_embed: torch.nn.Module) -> None:
    """Let a patch embedding give its patches channels last, as the blocks behind it read them.

    By itself it gives a view of the convolution's channels first, of which every norm makes a copy.
    """
    patch_embed.register_forward_hook(lambda _, __, patches: patches.contiguous())


def attend_with_positions(attention: Any, n_heads: int, kernel: AttentionKernel, patches: torch.Tensor) -> torch.Tensor:
    """The `forward` of Segment Anything's encoder attention, for patches (batch, height, width, channels)."""
    batch, height, width, _ = patches.shape
    qkv = attention.qkv(patches).reshape(batch, height * width, 3, n_heads, -1).permute(2, 0, 3, 1, 4)
    rows = relative_positions(attention.rel_pos_h, height)
    columns = relative_positions(attention.rel_pos_w, width)
    way = blocked_attention if kernel is AttentionKernel.BLOCKED else lengthened_attention
    attended = way(qkv, rows, columns, (height, width))
    projected: torch.Tensor = attention.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))
    return projected


def lengthened_attention(
    qkv: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, shape_hw: tuple[int, int]
) -> torch.Tensor:
    """Attention over a grid of patches with relative positions, (batch, heads, height * width, channels).

    Args:
        qkv: (3, batch, heads, height * width, channels): queries, keys and values.
        rows: (height, height, channels): what a query in row i is multiplied with for a key in row j.
        columns: (width, width, channels): likewise.
        shape_hw: Height and width of the grid, in patches.
    """
    queries, keys, values = qkv.unbind(0)
    n_channels = queries.shape[-1]
    on_grid = torch.unflatten(queries, 2, shape_hw)
    row_terms = torch.einsum("bnhwc,hkc->bnhwk", on_grid, rows).flatten(2, 3)
    column_terms = torch.einsum("bnhwc,wkc->bnhwk", on_grid, columns).flatten(2, 3)
    longer_queries = torch.cat([queries * n_channels**-0.5, row_terms, column_terms], dim=-1)
    # Ones at each patch's row and column, (height * width, height + width).
    rows_of, columns_of = (torch.eye(side, dtype=keys.dtype, device=keys.device) for side in shape_hw)
    positions = torch.cat([rows_of.repeat_interleave(shape_hw[1], dim=0), columns_of.repeat(shape_hw[0], 1)], dim=1)
    longer_keys = torch.cat([keys, positions.expand(*keys.shape[:2], -1, -1)], dim=-1)
    # The fused kernels want all three of one length. The zeros cost a product, an unfused kernel would cost the table.
    longer_values = F.pad(values, (0, sum(shape_hw)))
    attended = F.scaled_dot_product_attention(longer_queries, longer_keys, longer_values, scale=1.0)
    return attended[..., :n_channels]


def blocked_attention(
    qkv: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, shape_hw: tuple[int, int]
) -> torch.Tensor:
    """The same as `lengthened_attention`, by the original's own sums, in blocks of `SCORES_AT_A_TIME`."""
    queries, keys, values = qkv.flatten(1, 2).unbind(0)
    on_grid = torch.unflatten(queries, 1, shape_hw)
    row_terms = torch.einsum("nhwc,hkc->nhwk", on_grid, rows).flatten(1, 2)
    column_terms = torch.einsum("nhwc,wkc->nhwk", on_grid, columns).flatten(1, 2)
    queries = queries * queries.shape[-1] ** -0.5
    keys = keys.transpose(1, 2)
    attended = torch.empty_like(queries)
    for block in score_blocks(len(queries), queries.shape[1], keys.shape[2], qkv.dtype):
        heads = block[0]
        terms = row_terms[block][..., None] + column_terms[block][..., None, :]
        # The product is added to the terms where they are, in the product's own accuracy.
        scores = terms.flatten(2).baddbmm_(queries[block], keys[heads])
        attended[block] = scores.softmax(dim=-1) @ values[heads]
    return torch.unflatten(attended, 0, qkv.shape[1:3])


def relative_positions(table: torch.Tensor, length: int) -> torch.Tensor:
    """The relative positions of each pair of patches along an axis, (length, length, channels).

    Raises:
        ValueError: If the table, (2 * length - 1, channels), is for another number of patches.
    """
    if len(table) != 2 * length - 1:
        raise ValueError(f"{len(table)} relative positions don't fit {length} patches, which have {2 * length - 1}")
    indices = torch.arange(length, device=table.device)
    return table[indices[:, None] - indices[None, :] + length - 1]
