"""Read ahead: threads work on the next items while the last ones are being used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")


@contextmanager
def read_ahead(
    items: Iterable[_Item], read: Callable[[_Item], _Read], *, n_threads: int, n_ahead: int
) -> Iterator[Iterator[_Read]]:
    """Give what `read` makes of each item, in the order of the items.

    What `read` raises is raised where its item would have come. At the end of the block reading stops.

    Args:
        items: Taken as they are needed.
        read: Called on several threads at once.
        n_threads: How many.
        n_ahead: Items that are read, or being read, and not yet taken: what bounds the memory. At least 1.
    """
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="reader")
    try:
        yield _in_order(items, lambda item: pool.submit(read, item), n_ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(items: Iterable[_Item], submit: Callable[[_Item], "Future[_Read]"], n_ahead: int) -> Iterator[_Read]:
    iterator = iter(items)
    waiting = deque(submit(item) for item in islice(iterator, n_ahead))
    while waiting:
        read = waiting.popleft().result()
        waiting.extend(submit(item) for item in islice(iterator, 1))
        yield read
