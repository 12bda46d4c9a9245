"""Device, dtype, compilation and versions of the libraries: what a run's numbers depend on beside its inputs."""

import logging
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version

import torch

from grounded_seg.errors import DeviceError, UsageError
from grounded_seg.settings import Precision, check_device_name

_LOG = logging.getLogger(__name__)

_BFLOAT16_CAPABILITY = (8, 0)
"""First CUDA compute capability with bfloat16 in hardware; older cards only emulate it."""
_FLOAT16_CAPABILITY = (7, 0)
"""First one with tensor cores; on many cards before it float16 is slower than float32."""


def resolve_device(name: str) -> torch.device:
    """The device of this name.

    Args:
        name: "cpu", "cuda" (the first card), "cuda:N", "mps", or "auto" for the first available one of CUDA, MPS, CPU.

    Raises:
        DeviceError: If this machine doesn't have the device.
    """
    check_device_name(name)
    available = _available_devices()
    if name == "auto":
        return torch.device(available[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in available:
        raise DeviceError(f"device {name} isn't available; this machine has {', '.join(available)}; use one, or auto")
    return torch.device(wanted)


def resolve_devices(names: Sequence[str]) -> tuple[str, ...]:
    """The devices of these names; "all" alone stands for every CUDA device.

    Raises:
        UsageError: If a name is unknown, or they are of several kinds.
        DeviceError: If this machine doesn't have one of them.
    """
    if list(names) == ["all"]:
        cards = tuple(one for one in _available_devices() if one.startswith("cuda"))
        if not cards:
            raise DeviceError("--devices all means all CUDA devices, and this machine has none; leave it out")
        return cards
    if "all" in names or "auto" in names:
        raise UsageError(f"--devices is {','.join(names)}; name each device, as in cuda:0,cuda:1, or give all alone")
    devices = tuple(str(resolve_device(name)) for name in names)
    if len(kinds := {one.partition(":")[0] for one in devices}) > 1:
        raise UsageError(f"--devices has {' and '.join(sorted(kinds))}, whose results differ; name devices of one kind")
    return devices


def check_alike(names: Sequence[str], precision: Precision) -> None:
    """Refuse devices whose own dtypes differ where they choose it; warn where cards are of different models."""
    devices = [torch.device(name) for name in names if name.startswith("cuda")]
    dtypes = {one: str(_fastest_dtype(one)).removeprefix("torch.") for one in devices}
    if precision is Precision.AUTO and len(set(dtypes.values())) > 1:
        named = ", ".join(f"{device} {dtype}" for device, dtype in dtypes.items())
        raise DeviceError(f"the devices have different dtypes ({named}); give one for all with --dtype")
    models = {torch.cuda.get_device_name(one) for one in devices}
    if len(models) > 1:
        _LOG.warning(
            "the devices are different models (%s): the last digits of an image's numbers depend on which one it meets",
            ", ".join(sorted(models)),
        )


def _available_devices() -> list[str]:
    """Names of the available devices, the fastest first; the CPU is always the last one."""
    with warnings.catch_warnings():
        # A CUDA build of torch warns about a missing or old driver; for us that is simply no CUDA device.
        warnings.simplefilter("ignore")
        n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*(f"cuda:{index}" for index in range(n_cuda)), *mps, "cpu"]


def resolve_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of weights and activations; a `DeviceError` if the device can't compute in it.

    `auto` takes bfloat16 only where the hardware computes in it (a CPU with AMX or AVX512-BF16, a CUDA card from
    compute capability 8.0 on), float16 on the CUDA cards with tensor cores before that, and float32 elsewhere.
    """
    dtype = _fastest_dtype(device) if precision is Precision.AUTO else dtype_named(precision)
    # What is chosen for a CPU needs no trial; this makes a run start faster.
    if device.type != "cpu" or precision not in (Precision.AUTO, Precision.FLOAT32):
        _check_runs(dtype, device)
    if device.type == "cpu" and dtype is not torch.float32 and dtype is not _fastest_dtype(device):
        _LOG.warning("This CPU has no %s arithmetic: expect it to be very slow. float32 is faster here.", precision)
    return dtype


def dtype_named(name: str) -> torch.dtype:
    """The dtype of this name: float32, bfloat16 or float16."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _fastest_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= _BFLOAT16_CAPABILITY:
            return torch.bfloat16
        return torch.float16 if capability >= _FLOAT16_CAPABILITY else torch.float32
    # torch has no public question for this before 2.10; these two have been there, unchanged, since 2.4.
    if device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return torch.bfloat16
    return torch.float32


def _check_runs(dtype: torch.dtype, device: torch.device) -> None:
    """Try the operations that the models are made of, at the smallest size."""
    try:
        ones = torch.ones(1, 1, 2, 2, dtype=dtype, device=device)
        torch.nn.functional.conv2d(ones, ones)
        torch.nn.functional.layer_norm(ones @ ones, (2,))
    except (RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        remedy = "--device cpu" if dtype is torch.float32 else "--dtype float32"
        raise DeviceError(f"{device} can't compute in {dtype}: {reason}. Use {remedy}.") from error


def use_exact_float32(device: torch.device) -> None:
    """Let a GPU of NVIDIA compute float32 in float32 from now on, in this whole process.

    By itself torch lets convolutions round to TF32, which has 10 bits where float32 has 23.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def compile_encoder(encoder: torch.nn.Module) -> None:
    """Send an image encoder through torch.compile, in place: when it is called, once for each size of a batch.

    Batches are padded to one size, so sizes are compiled in: a first short one doesn't make the others slower.
    """
    encoder.compile(dynamic=False)


def compiling(encoder: torch.nn.Module, *, compiled: bool) -> Callable[[], AbstractContextManager[None]]:
    """Send an encoder through torch.compile if it is to be `compiled`; the context that it is called in."""
    if not compiled:
        return nullcontext
    compile_encoder(encoder)
    return compile_failure_as_device_error


@contextmanager
def compile_failure_as_device_error() -> Iterator[None]:
    """A failure of torch.compile, as without a C++ compiler, as a `DeviceError` of one line."""
    # Seconds to import, which those who don't compile should not wait.
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        # The first line says which of torch's parts has failed, the second why.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2]) or type(error).__name__
        raise DeviceError(
            f"torch.compile can't build an image encoder here ({reason}). Leave --compile out, "
            "or install what it needs: a C++ compiler on a CPU, Triton on a GPU."
        ) from error


def n_threads() -> int:
    """CPU threads that one operation of torch may use."""
    return torch.get_num_threads()


def set_n_threads(n_threads: int) -> None:
    """Set the CPU threads that one operation of torch may use, on all threads of this process."""
    torch.set_num_threads(n_threads)


@dataclass(frozen=True)
class Versions:
    """The software that a run's numbers depend on, for its manifest; nothing that identifies a machine."""

    grounded_seg: str
    python: str
    torch: str
    torchvision: str
    transformers: str
    peft: str
    segment_anything: str
    opencv_python: str
    pycocotools: str
    pillow: str
    numpy: str
    cpu_capability: str
    """The widest vector instructions that torch uses here, such as AVX2."""


def versions() -> Versions:
    """The installed versions; "not installed" for a missing package."""
    own = {"python": platform.python_version(), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    packages = [field.name for field in fields(Versions) if field.name not in own]
    return Versions(**own, **{name: _version(name.replace("_", "-")) for name in packages})


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
