"""torch.compile for the image encoder of either stage."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from grounded_seg.errors import DeviceError


def compile_encoder(encoder: nn.Module) -> None:
    """Compile a module in place: when it is first called, and again for each other batch size."""
    encoder.compile()


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
