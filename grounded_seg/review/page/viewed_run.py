"""A run as the page sees it: its index, what was decided, and what the truth says, kept together."""

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from grounded_seg.coco.schema import JournalInstance
from grounded_seg.errors import InputError, UsageError
from grounded_seg.files import is_locked
from grounded_seg.review.decisions import Event, Key, What
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.review.page.items import item_of
from grounded_seg.review.page.journal_index import Flag, JournalIndex
from grounded_seg.review.page.run_marks import RunMarks
from grounded_seg.review.page.selection import STATES, Filter, counts_by_threshold, select
from grounded_seg.review.page.truth import Truth
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.journal import LOCK_NAME
from grounded_seg.runs.manifest import read_manifest, refuse_evaluation

_N_JUDGED_AT_ONCE = 2000
"""Lines in memory while they are compared with the truth."""


class ViewedRun(AbstractContextManager["ViewedRun"]):
    """One run for the page; for a `with` statement, and for several threads."""

    def __init__(self, run: Path, *, reviewer: str | None = None, truth: Path | None = None) -> None:
        """Index the run, and read all decisions about it.

        Args:
            run: The run's folder, finished or not.
            reviewer: Who decides.
            truth: A COCO file of what is on the images.

        Raises:
            InputError: If there is no run, or it or the truth can't be read.
            UsageError: If it is an evaluation's folder, or another process decides on the run.
            OutputError: If decisions can't be written there.
        """
        self.folder, self.reviewer = RunFolder(run), reviewer
        if not self.folder.manifest.exists():
            raise InputError(f"{run} is no run's folder: it has no run.json; name what `grounded-seg run -o` wrote")
        self.manifest = read_manifest(self.folder.manifest)
        refuse_evaluation(self.manifest, run)
        if not self.folder.journal.exists():
            raise InputError(f"{self.folder.journal} isn't there; wait for the run's first image, or name another run")
        self._lock = threading.RLock()
        with ExitStack() as stack:
            self._review = stack.enter_context(Review(run, write=True, reviewer=reviewer))
            self.prompts: dict[str, str] = dict(self._review.class_by_prompt)
            self._index = stack.enter_context(JournalIndex(self.folder.journal, list(self.prompts)))
            self._truth = None if truth is None else Truth(truth, self._review.class_of)
            self._marked = RunMarks(self._index, self._review, self.prompts)
            started = time.perf_counter()
            self.refresh()
            self.index_s = time.perf_counter() - started
            self._opened = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def n_images(self) -> int:
        """Images in the journal so far, the skipped ones too."""
        return self._index.columns.n_images

    @property
    def n_instances(self) -> int:
        """Instances of the journal so far."""
        return self._index.columns.n_instances

    @property
    def notes(self) -> list[str]:
        """What was read in spite of its form, a line each."""
        return [*self._review.notes, *(() if self._truth is None else self._truth.notes)]

    def refresh(self) -> None:
        """Take in what the run has written since.

        Raises:
            InputError: If the journal can't be read any more.
        """
        with self._lock:
            if self._index.update():
                self._forget()
            self._marked.add_new()
            if self._truth is not None:
                self._judge_new(self._truth)

    def summary(self) -> dict[str, Any]:
        """Say how far the run is, and of each class what was decided, and what stays at each threshold."""
        with self._lock:
            columns, marks, names = self._index.columns, self._marked.marks, self._marked.classes
            counts = counts_by_threshold(columns, marks)
            cells = np.bincount(marks.label * len(STATES) + marks.state, minlength=len(names) * len(STATES))
            by_state = cells.reshape(-1, len(STATES)).tolist()
            return {
                "run": self.folder.root.absolute().name,
                "prompts": self.prompts,
                "n_images": columns.n_images,
                "n_all": max(columns.n_images, int(self.manifest.get("images", {}).get("count", 0))),
                "n_skipped": int(columns.skipped.sum()),
                "n_instances": columns.n_instances,
                "is_running": is_locked(self.folder.root / LOCK_NAME) is True,
                "reviewer": self.reviewer,
                "has_truth": self._truth is not None,
                "classes": [
                    {
                        "name": name,
                        "threshold": self._review.thresholds.get(name),
                        "stays": counts[number].tolist(),
                        **dict(zip(STATES, by_state[number], strict=True)),
                    }
                    for number, name in enumerate(names)
                ],
            }

    def selection(self, wanted: Filter) -> list[int]:
        """Give the images that a filter lets through, in its order."""
        with self._lock:
            verdicts = None if self._truth is None else self._truth.verdicts
            found = select(self._index.columns, self._marked.marks, wanted, self._marked.classes, verdicts)
            return [int(image) for image in found.tolist()]

    def item(self, image: int) -> dict[str, Any]:
        """Give all that the page shows about an image.

        Raises:
            UsageError: If there is no such image.
            InputError: If a decision is about another run.
        """
        with self._lock:
            self._check(image)
            reviewed = self._review.of(self._index.line(image))
            columns = self._index.columns
            rows = columns.instances_of(image)
            verdicts = None if self._truth is None else self._truth.verdicts.verdict[rows].tolist()
            objects = [] if self._truth is None else self._truth.objects_of(reviewed.line["file_name"])
            return item_of(image, reviewed, columns.flags[rows].tolist(), verdicts, objects)

    def file_name(self, image: int) -> str:
        """Give an image's name.

        Raises:
            UsageError: If there is no such image.
        """
        self._check(image)
        return self._index.columns.name(image)

    def decide(self, image: int, what: What, keys: Sequence[Key], class_name: str | None = None) -> None:
        """Decide on instances of an image; the decision is on the disk when this returns.

        Raises:
            UsageError: If there is no such image or instance.
            OutputError: If it can't be written.
        """
        with self._lock:
            self._check(image)
            self._review.decide(what, self._index.line(image), keys, class_name)
            self._marked.mark(image)

    def instances(self, image: int) -> list[JournalInstance]:
        """Give an image's instances as the journal has them, and those that were added and aren't rejected.

        Raises:
            UsageError: If there is no such image.
        """
        with self._lock:
            self._check(image)
            reviewed = self._review.of(self._index.line(image))
            return [one.instance for one in reviewed if not (one.is_new and one.is_rejected)]

    def add(self, image: int, instances: Sequence[JournalInstance], class_name: str | None = None) -> None:
        """Add instances to an image, undecided; without a class, in that of their prompt.

        Raises:
            UsageError: If there is no such image.
            OutputError: If they can't be written.
        """
        with self._lock:
            self._check(image)
            line = self._index.line(image)
            for one in instances:
                self._review.add(line, one, class_name or self._review.class_of(one))
            self._marked.mark(image)

    def set_threshold(self, class_name: str, score: float | None) -> None:
        """Drop undecided instances of a class that score less.

        Raises:
            UsageError: If the run has no such class.
            OutputError: If it can't be written.
        """
        with self._lock:
            if class_name not in self._marked.classes:
                names = ", ".join(self._marked.classes)
                raise UsageError(f"the run has no class {class_name!r}; it has {names}")
            self._review.set_threshold(class_name, score)
            self._marked.take_thresholds()

    def undo(self) -> tuple[Event, int | None] | None:
        """Undo the last decision, and give it with the index of its image; None where there is none left.

        Raises:
            OutputError: If that can't be written.
        """
        with self._lock:
            event = self._review.undo()
            if event is None:
                return None
            image = None if event.image is None else self._index.columns.find(event.image)
            if image is None:
                self._marked.take_thresholds()
            else:
                self._marked.mark(image)
            return event, image

    def _check(self, image: int) -> None:
        if not 0 <= image < self.n_images:
            raise UsageError(f"the run has no image number {image}; load the page again")

    def _forget(self) -> None:
        """Begin anew, with no image."""
        self._marked.clear()
        if self._truth is not None:
            self._truth.clear()

    @property
    def _has_masks(self) -> bool:
        return bool((self._index.columns.flags & Flag.HAS_MASK).any())

    def _judge_new(self, truth: Truth) -> None:
        """Compare images that the index has got with the truth."""
        columns, n_before = self._index.columns, len(truth.verdicts.n_truths)
        if n_before == columns.n_images:
            return
        truth.find_images(map(columns.name, range(n_before, columns.n_images)), has_masks=self._has_masks)
        for start in range(n_before, columns.n_images, _N_JUDGED_AT_ONCE):
            end = min(start + _N_JUDGED_AT_ONCE, columns.n_images)
            truth.judge([self._index.line(image) for image in range(start, end)])
