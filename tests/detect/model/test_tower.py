import copy

import pytest
import torch
from tiny_florence import SIDE, make_network
from torch import nn
from transformers.models.florence2.modeling_florence2 import Florence2VisionWindowAttention

from grounded_seg.detect.model import tower as tower_module
from grounded_seg.detect.model.tower import use_kernels, use_one_layout
from grounded_seg.device.kernels import AttentionKernel, Kernels, LinearKernel


def towers() -> tuple[nn.Module, nn.Module]:
    """transformers' own, and the same in one layout."""
    own = make_network().model.vision_tower
    ours = copy.deepcopy(own)
    use_one_layout(ours)
    return own, ours


def pixels(n_images: int = 2) -> torch.Tensor:
    return torch.randn(n_images, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("whole_up_to", [0, 2, 4])
def test_outputs_are_transformers_own(whole_up_to: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tower_module, "_WHOLE_UP_TO", whole_up_to)
    own, ours = towers()
    with torch.inference_mode():
        expected, found = (one(pixels()).last_hidden_state for one in (own, ours))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_half_precision_loses_no_more_than_transformers_own() -> None:
    with torch.inference_mode():
        exact, *half = (one(pixels()).last_hidden_state for one in (towers()[0], *(t.bfloat16() for t in towers())))
    theirs, ours = (float((one.float() - exact).abs().mean()) for one in half)
    assert 0 < ours <= 1.1 * theirs


@pytest.mark.parametrize("side", [SIDE, 80])
@torch.inference_mode()
def test_windows_in_blocks_say_the_same(side: int) -> None:
    """Also where windows reach beyond the image's edge."""
    values = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))
    seen: list[tuple[int, ...]] = []
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        fused, eager, blocked = (towers()[1].to(dtype) for _ in range(3))
        eager.config._attn_implementation = "eager"
        use_kernels(blocked, Kernels("any", *[AttentionKernel.BLOCKED] * 2, *[LinearKernel.TORCH] * 2))
        for one in blocked.modules():
            if isinstance(one, Florence2VisionWindowAttention):
                assert "forward" in vars(one)
                one.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1:3]))
        found.append([one(values.to(dtype)).last_hidden_state.float() for one in (fused, eager, blocked)])
    assert any(n % 4 for shape in seen for n in shape)
    exact = found[0][0]
    torch.testing.assert_close(found[0][2], exact, rtol=0, atol=1e-5 * float(exact.abs().max()))
    # Fused attention keeps scores in float32; transformers' own plain products round them, and so do blocks. One tiny
    # tower says little about how much: tests/device/test_kernels.py has the bound of the attention itself.
    own, ours = (float((half - exact).abs().mean()) for half in found[1][1:])
    assert 0 < ours <= 1.5 * own


def test_gradients_are_transformers_own() -> None:
    gradients = []
    for one in towers():
        one(pixels(1)).last_hidden_state.square().mean().backward()
        gradients.append({name: weights.grad for name, weights in one.named_parameters()})
    for name, expected in gradients[0].items():
        largest = float(expected.abs().max())
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-4 * largest + 1e-12, msg=name)


def test_weights_and_their_names_stay() -> None:
    own, ours = (one.state_dict() for one in towers())
    assert own.keys() == ours.keys()
    assert all(torch.equal(own[name], ours[name]) for name in own)


def test_no_norm_has_to_copy() -> None:
    copied = []
    for one in towers():
        layouts: list[bool] = []
        for module in one.modules():
            if isinstance(module, nn.LayerNorm):
                module.register_forward_pre_hook(lambda _, inputs, to=layouts: to.append(inputs[0].is_contiguous()))
        with torch.inference_mode():
            one(pixels())
        copied.append(layouts.count(False))
    assert copied[0] > 0
    assert copied[1] == 0
