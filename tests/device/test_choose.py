"""Device and dtype: what is chosen, and what is refused with a remedy."""

import logging
import platform
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from grounded_seg.device import choose
from grounded_seg.device.choose import n_threads, resolve_device, resolve_dtype, versions
from grounded_seg.errors import DeviceError, UsageError
from grounded_seg.settings import Precision

CPU = torch.device("cpu")
CUDA = torch.device("cuda:0")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> "Machine":
    return Machine(monkeypatch).with_cuda(0).with_mps(False).with_bfloat16(False)


class Machine:
    """Pretends to have this hardware."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def with_cuda(self, n_cards: int, capability: tuple[int, int] = (8, 0)) -> "Machine":
        self._patch.setattr(torch.cuda, "is_available", lambda: n_cards > 0)
        self._patch.setattr(torch.cuda, "device_count", lambda: n_cards)
        self._patch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        if n_cards > 0:
            self._patch.setattr(choose, "_check_runs", lambda dtype, device: None)
        return self

    def with_mps(self, there: bool) -> "Machine":
        if there:
            self._patch.setattr(choose, "_check_runs", lambda dtype, device: None)
        self._patch.setattr(torch.backends.mps, "is_available", lambda: there)
        return self

    def with_bfloat16(self, there: bool) -> "Machine":
        self._patch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        self._patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: there)
        return self


@pytest.mark.parametrize(
    ("n_cards", "has_mps", "expected"),
    [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda:0"), (1, True, "cuda:0")],
)
def test_auto_takes_the_fastest_device(machine: Machine, n_cards: int, has_mps: bool, expected: str) -> None:
    machine.with_cuda(n_cards).with_mps(has_mps)
    assert resolve_device("auto") == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "expected"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("mps", "mps")]
)
def test_a_device_by_name(machine: Machine, name: str, expected: str) -> None:
    machine.with_cuda(2).with_mps(True)
    assert resolve_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "n_cards", "there"),
    [("cuda", 0, "cpu"), ("cuda:2", 2, "cuda:0, cuda:1, cpu"), ("mps", 1, "cuda:0, cpu")],
)
def test_a_missing_device_says_what_is_there(machine: Machine, name: str, n_cards: int, there: str) -> None:
    machine.with_cuda(n_cards)
    with pytest.raises(DeviceError, match=f"device {name} isn't available; this machine has {there}"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "CUDA"])
def test_an_unknown_device_name_is_a_usage_error(machine: Machine, name: str) -> None:
    with pytest.raises(UsageError, match="give auto, cpu, cuda, cuda:N or mps"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((9, 0), torch.bfloat16),
        ((8, 0), torch.bfloat16),
        ((7, 5), torch.float16),
        ((7, 0), torch.float16),
        ((6, 1), torch.float32),
    ],
)
def test_auto_dtype_on_cuda(machine: Machine, capability: tuple[int, int], expected: torch.dtype) -> None:
    machine.with_cuda(1, capability)
    assert resolve_dtype(Precision.AUTO, CUDA) is expected


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_dtype_on_a_cpu(machine: Machine, has_bfloat16: bool, expected: torch.dtype) -> None:
    machine.with_bfloat16(has_bfloat16)
    assert resolve_dtype(Precision.AUTO, CPU) is expected


def test_auto_dtype_elsewhere(machine: Machine) -> None:
    machine.with_mps(True)
    assert resolve_dtype(Precision.AUTO, torch.device("mps")) is torch.float32


@pytest.mark.parametrize("precision", [Precision.AUTO, Precision.FLOAT32])
def test_a_device_that_computes_nothing_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    def lacks(*args: object, **options: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (5, 0))
    monkeypatch.setattr(torch, "ones", lacks)
    with pytest.raises(DeviceError, match=r"cuda:0 can't compute in torch\.float32: .* device\. Use --device cpu\.$"):
        resolve_dtype(precision, CUDA)


def test_bfloat16_on_a_cpu_without_it_is_done_with_a_warning(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    assert resolve_dtype(Precision.BFLOAT16, CPU) is torch.bfloat16
    assert [(record.levelno, record.name) for record in caplog.records] == [
        (logging.WARNING, "grounded_seg.device.choose")
    ]
    assert "no bfloat16 arithmetic" in caplog.text


def test_what_the_device_does_well_gives_no_warning(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    assert resolve_dtype(Precision.FLOAT32, CPU) is torch.float32
    machine.with_bfloat16(True)
    assert resolve_dtype(Precision.BFLOAT16, CPU) is torch.bfloat16
    assert caplog.records == []


def test_a_dtype_the_device_lacks_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(*args: object) -> None:
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'")

    monkeypatch.setattr(torch.nn.functional, "conv2d", lacks)
    with pytest.raises(DeviceError, match=r"cpu can't compute in torch\.float16: .*Use --dtype float32"):
        resolve_dtype(Precision.FLOAT16, CPU)


def test_versions_of_everything_that_numbers_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asdict(versions())
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert all(found.values())
    assert platform.node() not in found.values()


def test_a_package_that_is_not_installed_is_said_so() -> None:
    assert choose._version("surely-not-a-package") == "not installed"


def test_threads_are_those_of_torch() -> None:
    assert n_threads() == torch.get_num_threads() >= 1


@pytest.fixture
def tf32() -> Iterator[tuple[Any, ...]]:
    """What may round to TF32, all of it switched on, and back as it was after the test."""
    parts = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [part.allow_tf32 for part in parts]
    for part in parts:
        part.allow_tf32 = True
    yield parts
    for part, allowed in zip(parts, before, strict=True):
        part.allow_tf32 = allowed


def test_float32_is_float32_on_a_gpu(tf32: tuple[Any, ...]) -> None:
    choose.use_exact_float32(CPU)
    assert [part.allow_tf32 for part in tf32] == [True, True]
    choose.use_exact_float32(CUDA)
    assert [part.allow_tf32 for part in tf32] == [False, False]
