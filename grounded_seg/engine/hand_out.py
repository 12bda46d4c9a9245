"""Batches to several workers and their answers back in order: who gets what next, and what a worker's death costs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

_Batch = TypeVar("_Batch")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, eq=False)
class LostBatch(Generic[_Batch]):
    """A batch whose worker died."""

    number: int
    batch: _Batch
    is_second: bool
    """It was lost before, and this time its worker had nothing else: it isn't handed out any more."""


class HandOut(Generic[_Batch, _Answer]):
    """Hands batches out in their order, each to one worker; pure bookkeeping, for one thread.

    A batch whose worker died is handed out once more, before all others, to a worker that gets nothing beside it. So
    the one that kills its workers is told from those that were with it.
    """

    def __init__(self, batches: Iterable[_Batch], *, n_each: int, n_ahead: int) -> None:
        """Put the batches together; none is taken yet.

        Args:
            batches: Taken as they are needed.
            n_each: Batches that a worker has at most.
            n_ahead: Batches from the first one without an answer on that are handed out at most: what bounds the
                answers that wait for those before them.
        """
        self._fresh = zip(count(), batches, strict=False)
        self._n_each, self._n_ahead = n_each, n_ahead
        self._held: dict[int, dict[int, _Batch]] = {}
        self._again: list[tuple[int, _Batch]] = []
        self._were_lost: set[int] = set()
        self._answers: dict[int, _Answer] = {}
        self._n_handed_out = self._n_given = 0
        self._has_fresh = True

    @property
    def is_finished(self) -> bool:
        """Whether every batch has its answer, and every answer was given."""
        return not (self._has_fresh or self._again or any(self._held.values()) or self._answers)

    def next_for(self, worker: int) -> tuple[int, _Batch] | None:
        """Hand out a batch with its number, from 0; None if the worker is to have no more at present."""
        held = self._held.setdefault(worker, {})
        if len(held) >= self._n_each or not self._were_lost.isdisjoint(held):
            return None
        if self._again:
            if held:
                return None
            number, batch = heappop(self._again)
        else:
            if not self._has_fresh or self._n_handed_out >= self._n_given + self._n_ahead:
                return None
            taken = next(self._fresh, None)
            if taken is None:
                self._has_fresh = False
                return None
            number, batch = taken
            self._n_handed_out += 1
        held[number] = batch
        return number, batch

    def answered(self, worker: int, number: int, answer: _Answer) -> None:
        """Take a worker's answer to a batch that it has."""
        del self._held[worker][number]
        self._answers[number] = answer

    def lost(self, worker: int) -> list[LostBatch[_Batch]]:
        """Take back what a dead worker has, in order; what is lost for the second time needs an answer by `give_up`."""
        lost = [
            LostBatch(number, batch, number in self._were_lost)
            for number, batch in sorted(self._held.pop(worker, {}).items(), key=lambda item: item[0])
        ]
        for one in lost:
            self._were_lost.add(one.number)
            if not one.is_second:
                heappush(self._again, (one.number, one.batch))
        return lost

    def give_up(self, number: int, answer: _Answer) -> None:
        """Answer a batch that was lost twice."""
        self._answers[number] = answer

    def stop(self) -> None:
        """Hand out no batch that wasn't handed out before."""
        self._has_fresh = False

    def ready(self) -> Iterator[_Answer]:
        """Give the answers whose turn has come."""
        while self._n_given in self._answers:
            answer = self._answers.pop(self._n_given)
            self._n_given += 1
            yield answer
