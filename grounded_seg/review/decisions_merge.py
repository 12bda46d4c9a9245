"""Decisions of somebody else about the same run, merged into its own: by their times, the later line wins."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from grounded_seg.errors import InputError, UsageError
from grounded_seg.files import as_output_error, whole_file
from grounded_seg.images.find import common_root, root_from
from grounded_seg.review.decisions import Event, Key
from grounded_seg.review.decisions_applied import check_reviewable, reviewed_images
from grounded_seg.review.decisions_made import Decision
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.runs.folder import RunFolder, find_runs
from grounded_seg.runs.manifest import read_manifest

_N_NAMED = 5


@dataclass(frozen=True)
class Disagreement:
    """An instance, or a threshold, on which the two files say different things, each by a line that it has alone."""

    image: str | None
    """None for a threshold."""
    what: Key
    """The instance's key, or the class of the threshold."""
    own: str
    other: str
    holds: str
    """The one of the two whose line is the later one."""


@dataclass
class MergedDecisions:
    """What came of a merge."""

    n_new: int = 0
    """Lines that were taken over."""
    n_known: int = 0
    """Lines that both files had."""
    disagreements: list[Disagreement] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    """What was read in spite of its form, a line each."""

    def lines(self) -> Iterator[str]:
        """Tell it in words, a line each."""
        yield from self.notes
        known = f", {self.n_known} were there already" if self.n_known else ""
        yield f"{self.n_new} {'line' if self.n_new == 1 else 'lines'} merged{known}"
        n = len(self.disagreements)
        if n:
            yield f"{n} {'disagreement' if n == 1 else 'disagreements'}: the later line wins"
        for one in self.disagreements[:_N_NAMED]:
            what = f"the threshold of {one.what}" if one.image is None else f"{one.image}, instance {one.what}"
            yield f"disagreement about {what}: {one.own} here, {one.other} there; {one.holds} holds"
        if n > _N_NAMED:
            yield f"and {n - _N_NAMED} more disagreements"


def merge_decisions(run: Path, other: Path) -> MergedDecisions:
    """Merge another file of decisions about a run, or those of a copy of it, into the run's own.

    Lines are ordered by their times; those that both files have, by their ids, are kept once. Of the same time, each
    file's lines keep their order, and else the smaller id goes first: it doesn't matter which file is merged into
    which. The run's file is replaced whole.

    Raises:
        UsageError: If a page or another merge has the decisions open, or both are one file.
        InputError: If there are none to merge, or they are about another run.
        OutputError: If the result can't be written.
    """
    check_reviewable(run)
    file = RunFolder(other).review if other.is_dir() else other
    own_file = RunFolder(run).review
    if own_file.exists() and file.exists() and own_file.samefile(file):
        raise UsageError(f"{file} is the run's own file; name that of a copy")
    if not file.is_file():
        raise InputError(f"no decisions are at {file}; name a review.jsonl, or the folder that it is in")
    with Review(run, write=True) as own, Review(run, file=file) as new:
        for review in (own, new):
            # Another run's decisions are noticed before anything is written.
            for _ in reviewed_images(run, review):
                pass
        places = [
            _Place(event.when, which, number, event.id)
            for which, review in enumerate((own, new))
            for number, event in enumerate(review.events())
        ]
        known, others = ({place.event_id for place in places if place.which == which} for which in (0, 1))
        merged = MergedDecisions(n_new=len(others - known), n_known=len(others & known), notes=(*own.notes, *new.notes))
        merged.disagreements += _disagreements(own, new, known, others)
        _write(own_file, ((own, new)[place.which].event(place.number) for place in _in_order(places)))
    return merged


def carry_over(runs: Sequence[Path], merged: Path) -> int:
    """Take the decisions about runs over to the run that they were just merged into, and give the number of lines.

    Raises:
        InputError: If decisions are damaged or about another run.
        OutputError: If they can't be written.
    """
    reviewed = [run for run in find_runs(runs) if RunFolder(run).review.exists()]
    events: list[Event] = []
    for run in reviewed:
        prefix = _prefix(run, merged)
        with Review(run) as review:
            for _ in reviewed_images(run, review):
                pass
            events += [
                event if event.image is None else replace(event, image=f"{prefix}{event.image}")
                for event in review.events()
            ]
    if reviewed:
        _write(RunFolder(merged).review, sorted(events, key=attrgetter("when")))
    return len(events)


def _prefix(run: Path, merged: Path) -> str:
    """What the names of a run's images begin with in the run that it was merged into; nothing for shards of a list."""
    part, whole = (read_manifest(RunFolder(folder).manifest) for folder in (run, merged))
    if part.get("shard") is not None:
        return ""
    _, (way, _) = common_root([root_from(one["images"]["root"]) for one in (part, whole)])
    return way


def _write(path: Path, events: Iterable[Event]) -> None:
    with as_output_error(path), whole_file(path) as file:
        file.writelines(event.text().encode("ascii") + b"\n" for event in events)


class _Place(NamedTuple):
    """Where a line is: its time, 0 for the run's own file and 1 for the other, its number there, and its id."""

    when: datetime
    which: int
    number: int
    event_id: str


def _in_order(places: list[_Place]) -> Iterator[_Place]:
    """The lines of both files by their times, each once: where the files give it two times, at the first."""
    first: dict[str, datetime] = {}
    for place in places:
        first[place.event_id] = min(place.when, first.get(place.event_id, place.when))
    ordered = sorted(place for place in places if place.when == first[place.event_id])
    for _, at_once in groupby(ordered, attrgetter("when")):
        by_id: dict[str, _Place] = {}
        files: tuple[list[str], list[str]] = ([], [])
        for place in at_once:
            by_id.setdefault(place.event_id, place)
            files[place.which].append(place.event_id)
        yield from (by_id[one] for one in _merged_order(*files))


def _merged_order(own: list[str], other: list[str]) -> Iterator[str]:
    """Ids in an order that agrees with both, the smallest first where they leave a choice."""
    graph: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys((*own, *other), ()))
    for ids in (own, other):
        for before, after in pairwise(ids):
            graph.add(after, before)
    try:
        graph.prepare()
    except CycleError:
        # Files that were merged by an earlier version can disagree.
        yield from dict.fromkeys(one for ids in sorted((own, other)) for one in ids)
        return
    ready = list(graph.get_ready())
    heapify(ready)
    while ready:
        yield (one := heappop(ready))
        graph.done(one)
        for freed in graph.get_ready():
            heappush(ready, freed)


def _disagreements(own: Review, new: Review, known: set[str], others: set[str]) -> Iterator[Disagreement]:
    for name in sorted(set(own.images) & set(new.images)):
        here, there = own.decisions(name).decided, new.decisions(name).decided
        differing = [key for key in here if key in there and here[key] != there[key]]
        if differing:
            by_own, by_new = own.deciding(name), new.deciding(name)
            for key in differing:
                words = _words(here[key]), _words(there[key])
                if holds := _later(words, by_own.get(key), by_new.get(key), known & others):
                    yield Disagreement(name, key, *words, holds)
    set_here, set_there = own.deciding_thresholds(), new.deciding_thresholds()
    for name in sorted(own.thresholds.keys() & new.thresholds.keys()):
        words = f"{own.thresholds[name]:g}", f"{new.thresholds[name]:g}"
        holds = _later(words, set_here.get(name), set_there.get(name), known & others)
        if holds and own.thresholds[name] != new.thresholds[name]:
            yield Disagreement(None, name, *words, holds)


def _later(words: tuple[str, str], own: Event | None, other: Event | None, of_both: set[str]) -> str | None:
    """The words of the later of two decisions; None where one of them is by a line of both files, the older one."""
    if own is None or other is None or {own.id, other.id} & of_both:
        return None
    return words[(own.when, own.id) < (other.when, other.id)]


def _words(decision: Decision) -> str:
    if decision.class_name is not None:
        return decision.class_name
    return "accepted" if decision.is_accepted else "rejected"
