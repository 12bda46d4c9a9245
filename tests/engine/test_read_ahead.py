"""Threads that read ahead: order, bounds and failures."""

import threading
import time
from collections.abc import Iterator
from itertools import count, islice

import pytest

from grounded_seg.engine import executors
from grounded_seg.engine.executors import read_ahead


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_without_a_word_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(executors, "_PATIENCE_S", 0.1)
    monkeypatch.setattr("concurrent.futures.thread._worker", full)
    with read_ahead([1, 2], str, n_threads=2, n_ahead=2) as results, pytest.raises(MemoryError, match="ended"):
        next(results)
