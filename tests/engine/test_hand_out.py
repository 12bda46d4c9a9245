"""Hand-out of batches to workers: order, bounds, and what deaths cost; on fake workers, in any interleaving."""

from collections.abc import Iterator
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from grounded_seg.engine.hand_out import HandOut


def test_answers_come_in_the_order_of_their_batches_whoever_is_first() -> None:
    work = HandOut[str, str]("abcd", n_each=2, n_ahead=8)
    assert [work.next_for(worker) for worker in (0, 1, 0, 1)] == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]
    work.answered(1, 3, "D")
    work.answered(1, 1, "B")
    assert list(work.ready()) == []
    work.answered(0, 0, "A")
    assert list(work.ready()) == ["A", "B"]
    work.answered(0, 2, "C")
    assert list(work.ready()) == ["C", "D"]
    # Only now it is known that there are no more.
    assert not work.is_finished
    assert work.next_for(0) is None
    assert work.is_finished


def test_a_worker_and_the_answers_that_wait_are_bounded() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    work = HandOut[int, int](numbers(), n_each=2, n_ahead=3)
    assert [work.next_for(0), work.next_for(0), work.next_for(0)] == [(0, 0), (1, 1), None]
    assert [work.next_for(1), work.next_for(1)] == [(2, 2), None]
    work.answered(1, 2, 2)
    # The first one isn't answered yet.
    assert work.next_for(1) is None
    work.answered(0, 0, 0)
    assert list(work.ready()) == [0]
    assert work.next_for(1) == (3, 3)
    assert taken == [0, 1, 2, 3]


def test_a_lost_batch_is_handed_out_once_more_first_and_alone() -> None:
    work = HandOut[str, str]("abcdef", n_each=3, n_ahead=20)
    for _ in "abc":
        work.next_for(0)
    assert work.next_for(1) == (3, "d")
    assert [(one.number, one.is_second) for one in work.lost(0)] == [(0, False), (1, False), (2, False)]
    # A worker that has others gets none of them, and no more of the others.
    assert work.next_for(1) is None
    assert work.next_for(2) == (0, "a")
    assert work.next_for(2) is None
    [again] = work.lost(2)
    assert (again.number, again.batch, again.is_second) == (0, "a", True)
    work.give_up(0, "failed")
    assert list(work.ready()) == ["failed"]
    work.answered(1, 3, "D")
    # Its companions were lost once only, and are none the worse for it.
    assert work.next_for(1) == (1, "b")
    work.answered(1, 1, "B")
    assert list(work.ready()) == ["B"]


def test_a_stopped_hand_out_ends_what_is_under_way() -> None:
    work = HandOut[str, str]("abc", n_each=1, n_ahead=9)
    work.next_for(0)
    work.next_for(1)
    work.lost(1)
    work.stop()
    assert work.next_for(1) == (1, "b")
    work.answered(0, 0, "A")
    work.answered(1, 1, "B")
    assert work.next_for(0) is None
    assert list(work.ready()) == ["A", "B"]
    assert work.is_finished


def test_no_batches_are_finished_when_that_is_known() -> None:
    work = HandOut[str, str]([], n_each=1, n_ahead=1)
    assert work.next_for(0) is None
    assert work.is_finished


@given(
    n_batches=st.integers(0, 12),
    n_workers=st.integers(1, 4),
    n_each=st.integers(1, 3),
    n_ahead=st.integers(1, 9),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=60),
)
def test_whatever_dies_every_batch_has_one_answer_in_order(
    n_batches: int, n_workers: int, n_each: int, n_ahead: int, steps: list[tuple[int, int]]
) -> None:
    work = HandOut[int, int](range(n_batches), n_each=n_each, n_ahead=n_ahead)
    held: dict[int, list[int]] = {worker: [] for worker in range(n_workers)}
    given_up: set[int] = set()
    told: list[int] = []
    # Then nobody dies any more, and all comes to its end.
    for worker, action in [*steps, *((step % n_workers, step // n_workers) for step in range(12 * 4 * 13))]:
        worker %= n_workers
        if action == 5 and len(told) < n_batches and (worker, action) in steps:
            for one in work.lost(worker):
                if one.is_second:
                    given_up.add(one.number)
                    work.give_up(one.number, one.number)
            held[worker] = []
        elif action % 2 and held[worker]:
            number = held[worker].pop()
            work.answered(worker, number, number)
        elif (handed := work.next_for(worker)) is not None:
            assert handed[0] == handed[1]
            held[worker].append(handed[0])
        assert all(len(one) <= n_each for one in held.values())
        told += work.ready()
    assert told == list(range(n_batches))
    assert work.is_finished
