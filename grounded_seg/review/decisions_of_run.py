"""The decisions about a run: made one by one, and what they come to for an image.

A later line beats an earlier one, a decision beats a threshold, and what is undone holds no more. The run's own files
are never changed.
"""

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from grounded_seg.coco.schema import JournalInstance, JournalLine
from grounded_seg.coco.values import Notes
from grounded_seg.errors import InputError, UsageError
from grounded_seg.review.decisions import ABOUT_INSTANCES, Box, Event, Key, What
from grounded_seg.review.decisions_file import DecisionsFile
from grounded_seg.review.decisions_made import ImageDecisions, ReviewedImage, ReviewedInstance
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.manifest import read_manifest

_NOTHING = ImageDecisions()
_OF_ANOTHER_RUN = "these decisions are about another run; put the right review.jsonl there"


class Review(AbstractContextManager["Review"]):
    """The decisions about a run; for a `with` statement. Several threads may use one."""

    def __init__(
        self, run: Path, *, write: bool = False, reviewer: str | None = None, file: Path | None = None
    ) -> None:
        """Read all decisions that were made.

        Args:
            run: The run's folder.
            write: Decisions are going to be made: the file is locked, and made where there is none.
            reviewer: Who makes them.
            file: Decisions about the run that are kept elsewhere.

        Raises:
            InputError: If there is no run or, to read, no decisions; if a line is damaged, and says which.
            UsageError: If another process writes the decisions.
            OutputError: If they can't be written.
        """
        folder = RunFolder(run)
        self.path = file or folder.review
        self.class_by_prompt: Mapping[str, str] = read_manifest(folder.manifest).get("prompts") or {}
        """As the run has it."""
        self.thresholds: dict[str, float] = {}
        """By class."""
        self._run, self._reviewer, self._writes = run, reviewer, write
        self._notes = Notes()
        self._kinds: list[What] = []
        self._images: dict[str, ImageDecisions] = {}
        self._of_thresholds: list[int] = []
        # How often an event is undone, by its number; and what an undoing undoes.
        self._n_undone: Counter[int] = Counter()
        self._undoes: dict[int, int] = {}
        self._guard = threading.RLock()
        self._file = DecisionsFile(self.path, write=write)
        try:
            for event in self._file.load(self._notes):
                self._take(event)
        except BaseException:
            self._file.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read in spite of its form, a line each."""
        return self._notes.lines()

    @property
    def n_events(self) -> int:
        """Number of lines, undone ones and undoings too."""
        return len(self._file)

    @property
    def images(self) -> Iterable[str]:
        """File names of the images that lines are about, undone ones too."""
        return self._images.keys()

    def decisions(self, file_name: str) -> ImageDecisions:
        """What was decided about an image, from memory and unchecked; not to be changed."""
        return self._images.get(file_name, _NOTHING)

    def added(self, file_name: str) -> list[ReviewedInstance]:
        """Instances that were added to an image."""
        with self._guard:
            state = self.decisions(file_name)
            events = [self._file.event(number) for number in state.added.values()]
            return [
                ReviewedInstance(event.id, event.instance, event.class_name, state.decided.get(event.id))
                for event in events
                if event.instance is not None and event.class_name is not None
            ]

    def of(self, line: JournalLine) -> ReviewedImage:
        """Give a line of the journal with what was decided about it.

        Raises:
            InputError: If a decision names an instance that the line lacks, or that has another box there: it is about
                another run. If the line has a prompt that `run.json` lacks.
        """
        with self._guard:
            state, added = self.decisions(line["file_name"]), self.added(line["file_name"])
            boxes = _boxes(line, added)
            for number in state.numbers:
                if self._kinds[number] in ABOUT_INSTANCES and not self._n_undone[number]:
                    self._check(number, boxes)
        own = [
            ReviewedInstance(key, one, self._own_class(one), state.decided.get(key))
            for key, one in enumerate(line["instances"])
        ]
        return ReviewedImage(line, (*own, *added), state.is_looked_through)

    def class_of(self, instance: JournalInstance) -> str:
        """The class of an instance: that of its prompt, which is its own class if the run didn't ask it."""
        prompt = instance["attributes"]["prompt"]
        return self.class_by_prompt.get(prompt, prompt)

    def _own_class(self, instance: JournalInstance) -> str:
        prompt = instance["attributes"]["prompt"]
        if prompt not in self.class_by_prompt:
            raise InputError(
                f"{self._run}: the journal has the prompt {prompt!r}, and run.json hasn't; they are of two runs, run "
                "again into another folder"
            )
        return self.class_by_prompt[prompt]

    def refuse_images(self, names: Collection[str]) -> None:
        """Raise an `InputError` for decisions about images that the run lacks, if there are any."""
        if names:
            name = min(names)
            place = self._file.place(self._images[name].numbers[0])
            raise InputError(f"{place}: the run has no image {name!r}; {_OF_ANOTHER_RUN}")

    def has_added(self) -> bool:
        """Whether instances were added."""
        return any(state.added for state in self._images.values())

    def new_classes(self) -> list[str]:
        """Classes that instances were relabelled to or added with, in the order of the alphabet."""
        decided = {one.class_name for state in self._images.values() for one in state.decided.values()}
        added = {one.own_class for name, state in self._images.items() if state.added for one in self.added(name)}
        return sorted(name for name in decided | added if name is not None)

    def decide(self, what: What, line: JournalLine, keys: Sequence[Key] = (), class_name: str | None = None) -> Event:
        """Accept, reject, clear or relabel instances of an image.

        An image is accepted as a whole without keys, beside those of its instances that are meant: it was looked
        through then, and what is undecided and below a threshold isn't there.

        Raises:
            UsageError: If the image has no such instance, or none is named.
            OutputError: If it can't be written; nothing was decided then.
        """
        if what not in ABOUT_INSTANCES or (what is What.RELABEL) != bool(class_name):
            raise ValueError(f"{what} with the class {class_name!r} is no decision about instances")
        with self._guard:
            boxes = _boxes(line, self.added(line["file_name"]))
            unknown = [key for key in keys if key not in boxes]
            if unknown:
                raise UsageError(f"{line['file_name']} has no instance {unknown[0]!r}; load the page again")
            if not keys and what is not What.ACCEPT:
                raise UsageError(f"{line['file_name']}: no instance is named; name what to {what}")
            picked = tuple(boxes[key] for key in keys)
            return self._append(Event(what, line["file_name"], tuple(keys), picked, class_name))

    def add(self, line: JournalLine, instance: JournalInstance, class_name: str) -> Event:
        """Add an instance to an image, undecided; the event's id is its key."""
        return self._append(Event(What.ADD, line["file_name"], class_name=class_name, instance=instance))

    def set_threshold(self, class_name: str, score: float | None) -> Event:
        """Leave undecided instances of a class out if they score less; None leaves none out."""
        return self._append(Event(What.THRESHOLD, class_name=class_name, score=score))

    def undo(self) -> Event | None:
        """Undo the reviewer's last line that holds, and give that; None where there is none."""
        with self._guard:
            for number in range(self.n_events - 1, -1, -1):
                if self._kinds[number] is not What.UNDO and not self._n_undone[number]:
                    event = self._file.event(number)
                    if event.reviewer == self._reviewer:
                        self._append(Event(What.UNDO, undoes=event.id))
                        return event
        return None

    def event(self, number: int) -> Event:
        """Read an event again, by its number from 0 in the order of the file."""
        with self._guard:
            return self._file.event(number)

    def events(self) -> Iterator[Event]:
        """Read all events again, in the order of the file."""
        return map(self.event, range(self.n_events))

    def deciding(self, file_name: str) -> dict[Key, Event]:
        """The event that decided about each instance of an image."""
        numbers = self.decisions(file_name).numbers
        events = [self.event(number) for number in numbers if not self._n_undone[number]]
        return {key: event for event in events for key in event.instances}

    def deciding_thresholds(self) -> dict[str, Event]:
        """The event that set the threshold of each class."""
        events = [self.event(number) for number in self._of_thresholds if not self._n_undone[number]]
        return {event.class_name: event for event in events if event.class_name is not None}

    def _append(self, event: Event) -> Event:
        if not self._writes:
            raise ValueError(f"{self.path} is open to be read only")
        with self._guard:
            event = self._file.append(event, self._reviewer)
            self._take(event)
        return event

    def _take(self, event: Event) -> None:
        """Let an event hold; it is the last one."""
        number = len(self._kinds)
        self._kinds.append(event.what)
        if event.image is not None:
            state = self._images.setdefault(event.image, ImageDecisions())
            state.numbers.append(number)
            state.apply(number, event)
        elif event.what is What.THRESHOLD:
            self._of_thresholds.append(number)
            self._apply_threshold(event)
        elif event.undoes is not None:
            target = self._file.number(event.undoes)
            if target is None or target >= number:
                self._notes.add("lines that undo what isn't there were left out", self._file.place(number))
                return
            self._undoes[number] = target
            self._count_undone(target, 1)

    def _count_undone(self, number: int, more: int) -> None:
        """Undo an event, or have it hold again."""
        held = not self._n_undone[number]
        self._n_undone[number] += more
        if held == (not self._n_undone[number]):
            return
        event = self._file.event(number)
        if number in self._undoes:
            self._count_undone(self._undoes[number], 1 if held is False else -1)
        elif event.image is not None:
            state = self._images[event.image]
            state.clear()
            for one in state.numbers:
                if not self._n_undone[one]:
                    state.apply(one, self._file.event(one))
        elif event.what is What.THRESHOLD:
            self.thresholds.clear()
            for one in self._of_thresholds:
                if not self._n_undone[one]:
                    self._apply_threshold(self._file.event(one))

    def _apply_threshold(self, event: Event) -> None:
        if event.class_name is None:
            return
        if event.score is None:
            self.thresholds.pop(event.class_name, None)
        else:
            self.thresholds[event.class_name] = event.score

    def _check(self, number: int, boxes: Mapping[Key, Box]) -> None:
        event = self._file.event(number)
        for key, box in zip(event.instances, event.boxes, strict=True):
            if isinstance(key, str) and key not in boxes:
                # Its line was undone or taken out.
                continue
            if key not in boxes:
                raise InputError(
                    f"{self._file.place(number)}: {event.image!r} has no instance {key} in this run; {_OF_ANOTHER_RUN}"
                )
            if boxes[key] != box:
                raise InputError(
                    f"{self._file.place(number)}: instance {key} of {event.image!r} has another box in this run; "
                    f"{_OF_ANOTHER_RUN}"
                )


def _boxes(line: JournalLine, added: Iterable[ReviewedInstance]) -> dict[Key, Box]:
    boxes: dict[Key, Box] = {key: tuple(map(float, one["bbox"])) for key, one in enumerate(line["instances"])}
    return boxes | {one.key: tuple(map(float, one.instance["bbox"])) for one in added}
