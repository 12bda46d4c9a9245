"""Segment Anything's mask decoder for many boxes on one image: the original's logits, without its copies.

segment-anything's `MaskDecoder` copies the image embedding for each box. Here all boxes read one embedding until the
first layer has written into it. Further, a head's scores of all patches against a few tokens, (keys W_k) · q, are
computed as keys · (q W_k): 56 columns for 7 tokens and 8 heads, where the keys' own projection has 128. Both are the
same sums in another order, so logits agree up to float32 rounding.

All of a head's matrices are thereby on the side of the few tokens, which stay in float32 at little cost: only products
with the many patches are in the chosen dtype.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from grounded_seg.segment.sam.modules import Attention, Sam


class BoxDecoder:
    """The mask decoder of one `Sam`: boxes on one image to logits and predicted IoUs."""

    def __init__(self, sam: Sam, dtype: torch.dtype = torch.float32) -> None:
        """Take the decoder of `sam`, which is changed in place; `dtype` is that of the products with patches."""
        self._prompts = sam.prompt_encoder
        self._decoder = decoder = sam.mask_decoder
        self._dtype = dtype
        decoder.output_upscaling.to(dtype)
        for layer in decoder.transformer.layers:
            layer.norm4.to(dtype)
        with torch.no_grad():
            # (patches, channels), as the transformer wants it.
            self._position = sam.prompt_encoder.get_dense_pe()[0].flatten(1).T.to(self._dtype).contiguous()
            self._no_mask = sam.prompt_encoder.no_mask_embed.weight.to(self._dtype)
            self._output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
            self._upscaling = [_linear_from_upsampling(decoder.output_upscaling[index]) for index in (0, 3)]

    @property
    def bytes_per_box(self) -> int:
        """Memory that one more box takes at its peak: its patches several times, then the upscaled ones."""
        n_values_at_a_time = 13
        return n_values_at_a_time * int(self._position.nbytes)

    def decode(
        self, embedding: torch.Tensor, boxes_xyxy: torch.Tensor, mask_indices: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (n, masks, 4 * grid, 4 * grid) and predicted IoUs (n, masks) of boxes on one image, both float32.

        The embedding is (channels, grid, grid); boxes are (n, 4) float32, n at least 1, in pixels of the model's
        square. `mask_indices` are those of the model's four masks to predict.
        """
        prompts, _ = self._prompts(points=None, boxes=boxes_xyxy, masks=None)
        tokens = torch.cat([self._output_tokens.expand(len(prompts), -1, -1), prompts], dim=1)
        patches = embedding.to(self._dtype).flatten(1).T + self._no_mask
        tokens, patches = self._transform(tokens, patches)
        masks = torch.stack(
            [self._decoder.output_hypernetworks_mlps[index](tokens[:, 1 + index]) for index in mask_indices], dim=1
        )
        ious = self._decoder.iou_prediction_head(tokens[:, 0])
        # One by one: a list as an index would be copied to a GPU, and waited for.
        chosen = torch.stack([ious[:, index] for index in mask_indices], dim=1)
        return self._logits(patches, masks).float(), chosen.float()

    def _transform(self, tokens: torch.Tensor, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`TwoWayTransformer`: tokens (n, tokens, channels) and shared patches (patches, channels) update each other.

        Patches come out as (n, patches, channels).
        """
        transformer = self._decoder.transformer
        queries = tokens
        for layer in transformer.layers:
            if layer.skip_first_layer_pe:
                queries = layer.self_attn(q=queries, k=queries, v=queries)
            else:
                placed = queries + tokens
                queries = queries + layer.self_attn(q=placed, k=placed, v=queries)
            queries = layer.norm1(queries)
            placed_patches = patches + self._position
            update = tokens_from_patches(layer.cross_attn_token_to_image, queries + tokens, placed_patches, patches)
            queries = layer.norm2(queries + update)
            queries = layer.norm3(queries + layer.mlp(queries))
            update = patches_from_tokens(layer.cross_attn_image_to_token, placed_patches, queries + tokens, queries)
            patches = layer.norm4(update.add_(patches))
        placed_patches = patches + self._position
        update = tokens_from_patches(transformer.final_attn_token_to_image, queries + tokens, placed_patches, patches)
        return transformer.norm_final_attn(queries + update), patches

    def _logits(self, patches: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Patches (n, patches, channels), upscaled four times, times each mask's vector (n, masks, channels / 8).

        Both transposed convolutions have their stride as kernel, so each patch is upscaled by itself: a product of
        (patches, channels), and the pixels are reordered once, at the end.
        """
        upscaling = self._decoder.output_upscaling
        norm, n_channels = upscaling[1], upscaling[1].weight.numel()
        quarters = torch.unflatten(F.linear(patches, *self._upscaling[0]), -1, (4, n_channels))
        quarters = upscaling[2](F.layer_norm(quarters, (n_channels,), norm.weight, norm.bias, norm.eps))
        pixels = torch.unflatten(upscaling[4](F.linear(quarters, *self._upscaling[1])), -1, (4, -1))
        compared = pixels.flatten(1, 3) @ masks.transpose(1, 2).to(self._dtype)
        grid = self._prompts.image_embedding_size[0]
        # (n, grid, grid, rows of 2, columns of 2, rows of 2, columns of 2, masks)
        placed = compared.view(len(patches), grid, grid, 2, 2, 2, 2, -1).permute(0, 7, 1, 3, 5, 2, 4, 6)
        return placed.reshape(len(patches), -1, 4 * grid, 4 * grid)


def tokens_from_patches(
    attention: Attention, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Attention of tokens to patches, as the `forward` of segment-anything's decoder `Attention`.

    Queries are (n, tokens, channels), float32; keys and values (n, patches, channels), or (patches, channels) where all
    n share them, of any dtype. The keys' bias adds the same to all scores of a query, which the softmax cancels.
    """
    n_heads = attention.num_heads
    per_head = torch.unflatten(attention.q_proj(queries), -1, (n_heads, -1))
    scale = per_head.shape[-1] ** -0.5
    key_weights = torch.unflatten(attention.k_proj.weight, 0, (n_heads, -1))
    folded = torch.einsum("nthc,hcd->nhtd", per_head * scale, key_weights).flatten(1, 2)
    weights = torch.softmax(folded.to(keys.dtype) @ keys.transpose(-2, -1), dim=-1)
    pooled = torch.unflatten((weights @ values).to(queries.dtype), 1, (n_heads, -1))
    value_weights = torch.unflatten(attention.v_proj.weight, 0, (n_heads, -1))
    found = torch.einsum("nhtd,hcd->nthc", pooled, value_weights).flatten(2) + attention.v_proj.bias
    projected: torch.Tensor = attention.out_proj(found)
    return projected


def patches_from_tokens(
    attention: Attention, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Attention of patches to tokens, (n, patches, channels) in new memory: the reverse of `tokens_from_patches`."""
    n_heads = attention.num_heads
    per_head = torch.unflatten(attention.k_proj(keys), -1, (n_heads, -1))
    per_head = per_head * per_head.shape[-1] ** -0.5
    query_weights = torch.unflatten(attention.q_proj.weight, 0, (n_heads, -1))
    folded = torch.einsum("nthc,hcd->nhtd", per_head, query_weights).flatten(1, 2)
    bias = torch.einsum("nthc,hc->nht", per_head, torch.unflatten(attention.q_proj.bias, 0, (n_heads, -1))).flatten(1)
    scores = folded.to(queries.dtype) @ queries.transpose(-2, -1) + bias[..., None].to(queries.dtype)
    weights = torch.softmax(torch.unflatten(scores, 1, (n_heads, -1)), dim=2).flatten(1, 2)
    value_heads = torch.unflatten(attention.v_proj(values), -1, (n_heads, -1))
    output_weights = torch.unflatten(attention.out_proj.weight, 1, (n_heads, -1))
    added = torch.einsum("nthc,dhc->nhtd", value_heads, output_weights).flatten(1, 2)
    update: torch.Tensor = weights.transpose(1, 2) @ added.to(queries.dtype) + attention.out_proj.bias.to(queries.dtype)
    return update


def _linear_from_upsampling(convolution: nn.ConvTranspose2d) -> tuple[torch.Tensor, torch.Tensor]:
    """A transposed convolution of kernel 2, stride 2 as weight (4 * out, in) and bias of a linear layer.

    The outputs of a pixel are top left, top right, bottom left, bottom right.
    """
    weights = dict(convolution.named_parameters())
    return weights["weight"].permute(2, 3, 1, 0).flatten(0, 2).contiguous(), weights["bias"].repeat(4)
