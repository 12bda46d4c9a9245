"""A GPU that isn't there: models whose tensors have shapes, dtypes and a device, but no values.

In torch's `FakeTensorMode` an operator fails where its tensors lie on different devices or have dtypes that don't go
together, as it would on a GPU. What needs a value, such as `item`, fails too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from grounded_seg.device.versions import numbers

OLDEST = (2, 12)
CUDA = torch.device("cuda", 0)
_Thing = TypeVar("_Thing")


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Within it, tensors of the device cuda can be made and computed with; a test skips if torch is too old for it."""
    if numbers(torch.__version__) < OLDEST:
        pytest.skip(
            f"fake tensors of torch {torch.__version__} ask the driver, or let dtypes pass that don't go together"
        )
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def on_cuda(thing: _Thing) -> _Thing:
    """Replace all tensors of an object, of its parts and of their parts, in place; call it within `fake_cuda`."""
    _replace(thing, set())
    return thing


def like_on_cuda(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)


def _replace(thing: Any, seen: set[int]) -> Any:
    if isinstance(thing, torch.device):
        return CUDA
    if isinstance(thing, nn.Parameter):
        return nn.Parameter(like_on_cuda(thing), thing.requires_grad)
    if isinstance(thing, torch.Tensor):
        return like_on_cuda(thing)
    if type(thing) in (tuple, list):
        return type(thing)(_replace(part, seen) for part in thing)
    if id(thing) not in seen:
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            _replace_in_module(thing, seen)
        elif type(thing).__module__.startswith("grounded_seg.") and hasattr(thing, "__dict__"):
            for name, part in vars(thing).items():
                object.__setattr__(thing, name, _replace(part, seen))
    return thing


def _replace_in_module(module: nn.Module, seen: set[int]) -> None:
    # A tensor that several modules share stays shared.
    shared: dict[int, Any] = {}
    for part in module.modules():
        seen.add(id(part))
        for own in (part._parameters, part._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    own[name] = shared.setdefault(id(tensor), _replace(tensor, seen))
