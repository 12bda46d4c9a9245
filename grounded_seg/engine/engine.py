"""The engine that every command shares: requests in a fixed order in, one outcome for each in the same order out."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self

from grounded_seg.engine.request import Made, Outcome, Request, Work
from grounded_seg.engine.this_process import ThisProcess
from grounded_seg.pipeline.chain import Chain


class Executor(Protocol[Made]):
    """Where images go through the models; for a `with` statement, whose steps come in this order."""

    def read_first(self) -> bool:
        """Read the first batch, so that a single bad image is told before the models are loaded.

        Returns:
            Whether there is any image to look at.

        Raises:
            ImageError: If one can't be read that isn't to be skipped.
        """

    def load(self, load: Callable[[], Chain]) -> None:
        """Load the models by a function that can be pickled.

        Raises:
            WeightsError, DeviceError: As for loading them.
        """

    def outcomes(self) -> Iterator[Outcome[Made]]:
        """Give the outcomes as they are done, in the order of the requests.

        Raises:
            ImageError: If an image can't be read that isn't to be skipped; what was done before it has come by then.
            DeviceMemoryError: If there is no memory even for one image.
        """

    def __enter__(self) -> Self:
        """Start to read ahead."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop all threads and processes."""


def open_engine(requests: Iterable[Request], work: Work[Made]) -> Executor[Made]:
    """Give what executes the requests: this process.

    Which images go through the models together is fixed by position: the requests are cut into batches from their
    first on, and a short batch is padded. So the same requests give the same numbers, whoever executes them.

    Args:
        requests: Taken as they are needed, a batch or two ahead. Only the last batch may be short.
        work: What is done with each image.
    """
    return ThisProcess(requests, work)
