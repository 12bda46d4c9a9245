"""Threads that read ahead and write behind: order, bounds, and what becomes of failures."""

import threading
import time
from collections.abc import Iterator
from itertools import count, islice

import pytest

from grounded_seg.engine.read_ahead import batches, read_ahead
from grounded_seg.engine.write_behind import OrderedWriter
from grounded_seg.errors import UsageError


def test_batches_are_cut_by_position() -> None:
    assert list(batches([], 3)) == []
    assert list(batches(range(7), 3)) == [(0, 1, 2), (3, 4, 5), (6,)]
    with pytest.raises(UsageError, match="batch-size"):
        list(batches([1], 0))


def test_what_is_read_comes_in_order_whatever_takes_longest() -> None:
    def read(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    with read_ahead(range(30), read, n_threads=4, n_ahead=6) as results:
        assert list(results) == [number * number for number in range(30)]


def test_reading_stays_within_its_bound_and_stops_with_the_block() -> None:
    started: list[int] = []

    def numbers() -> Iterator[int]:
        for number in count():
            started.append(number)
            yield number

    before = set(threading.enumerate())
    with read_ahead(numbers(), str, n_threads=2, n_ahead=5) as results:
        assert next(results) == "0"
        assert len(started) == 6
        assert list(islice(results, 10)) == [str(number) for number in range(1, 11)]
        assert len(started) == 16
    assert set(threading.enumerate()) <= before


def test_items_are_read_side_by_side() -> None:
    both = threading.Barrier(2, timeout=10)
    with read_ahead(range(2), lambda _: both.wait(), n_threads=2, n_ahead=2) as results:
        assert sorted(results) == [0, 1]


def test_a_failure_comes_where_its_item_would_have_come() -> None:
    def read(number: int) -> int:
        if number == 2:
            raise LookupError("two")
        return number

    with read_ahead(range(5), read, n_threads=2, n_ahead=5) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(LookupError, match="two"):
            next(results)


def test_nothing_to_read_is_nothing_read() -> None:
    with read_ahead([], str, n_threads=2, n_ahead=2) as results:
        assert list(results) == []


def made(number: int) -> int:
    time.sleep(0.002 * (number % 3))
    return number


def test_what_is_made_is_recorded_in_order() -> None:
    recorded: list[int] = []
    with OrderedWriter(recorded.append, n_threads=4, n_waiting=6) as writer:
        for number in range(30):
            writer.submit(lambda number=number: made(number))  # type: ignore[misc]
        writer.wait()
        assert recorded == list(range(30))
        writer.submit(lambda: 30)
    assert recorded == list(range(31))


def test_jobs_under_way_are_bounded() -> None:
    gate = threading.Event()
    recorded: list[bool] = []
    with OrderedWriter(recorded.append, n_threads=1, n_waiting=2) as writer:
        for _ in range(2):
            writer.submit(lambda: gate.wait(10))
        late = threading.Thread(target=writer.submit, args=(lambda: True,))
        late.start()
        late.join(0.05)
        assert late.is_alive()
        gate.set()
        late.join(10)
        assert not late.is_alive()
    assert recorded == [True] * 3


@pytest.mark.parametrize("where", ["making", "recording"])
def test_nothing_is_recorded_after_a_failure(where: str) -> None:
    recorded: list[int] = []

    def fail(number: int) -> int:
        if number == 2:
            raise OSError("disk full")
        return number

    def record(number: int) -> None:
        recorded.append(fail(number) if where == "recording" else number)

    def run() -> None:
        with OrderedWriter(record, n_threads=2, n_waiting=3) as writer:
            for number in range(9):
                writer.submit(lambda number=number: fail(number) if where == "making" else number)  # type: ignore[misc]

    before = set(threading.enumerate())
    with pytest.raises(OSError, match="disk full"):
        run()
    assert recorded == [0, 1]
    assert set(threading.enumerate()) <= before


def test_what_ends_the_block_is_told_and_the_jobs_are_done_all_the_same() -> None:
    recorded: list[int] = []

    def run() -> None:
        with OrderedWriter(recorded.append, n_threads=2, n_waiting=9) as writer:
            for number in range(5):
                writer.submit(lambda number=number: made(number))  # type: ignore[misc]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert recorded == list(range(5))
