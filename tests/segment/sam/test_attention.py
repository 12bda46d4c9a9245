"""The encoder's attention: the same numbers as segment-anything's own, in less memory."""

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention, ImageEncoderViT
from tiny_sam import SMALL, random_sam

from grounded_seg.device import kernels as kernels_module
from grounded_seg.device.kernels import AttentionKernel
from grounded_seg.segment.sam import attention as attention_module
from grounded_seg.segment.sam.attention import (
    attend_with_positions,
    blocked_attention,
    lay_out_patches,
    lengthened_attention,
    relative_positions,
    use_fast_attention,
)


def random_attention(side: int) -> Attention:
    torch.manual_seed(1)
    attention = Attention(24, num_heads=3, use_rel_pos=True, input_size=(side, side))
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return attention.eval()


def one_block_encoder(attention: Attention) -> ImageEncoderViT:
    """An object with the part of an encoder that is changed."""
    encoder = torch.nn.Module()
    block = torch.nn.Module()
    block.attn = attention
    encoder.blocks = torch.nn.ModuleList([block])
    return encoder


@pytest.mark.parametrize("kernel", AttentionKernel)
@pytest.mark.parametrize("side", [1, 2, 7, 16])
@torch.inference_mode()
def test_it_is_the_original_attention(side: int, kernel: AttentionKernel) -> None:
    attention = random_attention(side)
    patches = torch.randn(2, side, side, 24)
    expected = attention(patches)
    use_fast_attention(one_block_encoder(attention), kernel)
    assert torch.allclose(attention(patches), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", AttentionKernel)
@torch.inference_mode()
def test_windowed_and_global_blocks_give_the_original_embedding(kernel: AttentionKernel) -> None:
    original, fast = random_sam().image_encoder, random_sam().image_encoder
    # A window of 5 on a grid of 16 pads; the last block looks at everything.
    assert [block.window_size for block in fast.blocks] == [SMALL.window_size, SMALL.window_size, 0]
    use_fast_attention(fast, kernel)
    pixels = torch.randn(2, 3, SMALL.image_size, SMALL.image_size)
    expected = original(pixels)
    assert expected.std() > 0.1
    assert torch.allclose(fast(pixels), expected, atol=1e-4, rtol=1e-4)


def test_only_the_given_encoder_changes() -> None:
    changed, other = random_sam().image_encoder, random_sam().image_encoder
    use_fast_attention(changed, AttentionKernel.BLOCKED)
    assert "forward" in vars(changed.blocks[0].attn)
    assert "forward" not in vars(other.blocks[0].attn)
    assert changed.state_dict().keys() == other.state_dict().keys()


@pytest.mark.parametrize("shape_hw", [(1, 1), (5, 3), (4, 16)])
@pytest.mark.parametrize("at_a_time", [1, 50, 600, 10**6])
@torch.inference_mode()
def test_any_blocks_give_what_lengthened_vectors_give(
    shape_hw: tuple[int, int], at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernels_module.SCORES_AT_A_TIME, torch.float32, at_a_time)
    height, width = shape_hw
    torch.manual_seed(2)
    qkv = torch.randn(3, 2, 3, height * width, 8)
    rows, columns = (relative_positions(torch.randn(2 * side - 1, 8), side) for side in shape_hw)
    expected = lengthened_attention(qkv, rows, columns, shape_hw)
    assert torch.allclose(blocked_attention(qkv, rows, columns, shape_hw), expected, atol=1e-5)


@torch.inference_mode()
def test_encoders_attend_by_their_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for name in ("blocked_attention", "lengthened_attention"):
        original = getattr(attention_module, name)
        monkeypatch.setattr(
            attention_module, name, lambda *given, name=name, of=original: (called.append(name), of(*given))[1]
        )
    attention, patches = random_attention(2), torch.randn(1, 2, 2, 24)
    for kernel in AttentionKernel:
        attend_with_positions(attention, 3, kernel, patches)
    assert called == ["lengthened_attention", "blocked_attention"]


@pytest.mark.parametrize("at_a_time", [50, 600, 10**6])
@torch.inference_mode()
def test_blocks_in_bfloat16_round_the_scores_and_no_more(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernels_module.SCORES_AT_A_TIME, torch.bfloat16, at_a_time)
    torch.manual_seed(2)
    qkv = torch.randn(3, 2, 3, 16, 8)
    rows, columns = (relative_positions(torch.randn(7, 8), 4) for _ in range(2))
    exact = lengthened_attention(qkv, rows, columns, (4, 4))
    half = (qkv.bfloat16(), rows.bfloat16(), columns.bfloat16(), (4, 4))
    fused, blocked = (attend(*half).float() for attend in (lengthened_attention, blocked_attention))
    off = [float((one - exact).abs().mean()) for one in (fused, blocked)]
    # Fused attention keeps scores in float32, blocks store them in bfloat16, as segment-anything's own attention does.
    queries, keys, values = half[0].unbind(0)
    on_grid = queries.unflatten(2, (4, 4))
    terms = [
        torch.einsum(f"bnhwc,{side}kc->bnhwk", on_grid, table) for side, table in zip("hw", half[1:3], strict=True)
    ]
    scores = queries * 8**-0.5 @ keys.transpose(2, 3) + (terms[0][..., None] + terms[1][..., None, :]).flatten(
        4
    ).flatten(2, 3)
    own = float((scores.softmax(dim=-1) @ values - exact).abs().mean())
    assert off[0] < own
    assert 0 < off[1] <= 1.1 * own


def test_two_patches_by_hand() -> None:
    # One head, one channel, a grid of 1 x 2: scores are q * k + q * columns.
    qkv = torch.tensor([[1.0, 2.0], [3.0, 5.0], [10.0, 20.0]]).reshape(3, 1, 1, 2, 1)
    rows = torch.zeros(1, 1, 1)
    columns = relative_positions(torch.tensor([[1.0], [0.0], [-1.0]]), 2)
    attended = lengthened_attention(qkv, rows, columns, (1, 2))
    assert torch.allclose(blocked_attention(qkv, rows, columns, (1, 2)), attended)
    # The first query scores 3 + 0 and 5 + 1, the second 6 - 2 and 10 + 0.
    weights = torch.softmax(torch.tensor([[3.0, 6.0], [4.0, 10.0]]), dim=1)
    assert torch.allclose(attended.flatten(), weights @ torch.tensor([10.0, 20.0]))


def test_relative_positions_by_hand() -> None:
    table = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]])
    assert relative_positions(table, 3)[..., 0].tolist() == [[0, -1, -2], [1, 0, -1], [2, 1, 0]]


def test_a_table_for_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="5 relative positions don't fit 4 patches, which have 7"):
        relative_positions(torch.zeros(5, 8), 4)


def test_patches_are_laid_out_once_and_not_by_every_norm() -> None:
    layouts = []
    for make_fast in (False, True):
        encoder = random_sam().image_encoder
        if make_fast:
            lay_out_patches(encoder.patch_embed)
        seen: list[bool] = []
        for block in encoder.blocks:
            block.norm1.register_forward_pre_hook(lambda _, inputs, to=seen: to.append(inputs[0].is_contiguous()))
        with torch.inference_mode():
            encoder(torch.zeros(1, 3, SMALL.image_size, SMALL.image_size))
        layouts.append(seen)
    assert not any(layouts[0])
    assert all(layouts[1])
