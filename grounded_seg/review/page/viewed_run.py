"""A run as the page sees it: its index, what was decided, and what the truth says, kept together."""

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from grounded_seg.coco.schema import JournalInstance
from grounded_seg.errors import InputError, UsageError
from grounded_seg.files import is_locked
from grounded_seg.review.decisions import Event, Key, What
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.review.page.items import item_of
from grounded_seg.review.page.journal_index import Flag, JournalIndex, Numbers
from grounded_seg.review.page.selection import (
    ACCEPTED,
    REJECTED,
    RELABELLED,
    STATES,
    UNDECIDED,
    Filter,
    Marks,
    counts_by_threshold,
    select,
)
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
        self.manifest = read_manifest(self.folder.manifest)
        refuse_evaluation(self.manifest, run)
        if not self.folder.journal.exists():
            raise InputError(f"{self.folder.journal} isn't there; wait for the run's first image, or name another run")
        self._lock = threading.RLock()
        self._review = Review(run, write=True, reviewer=reviewer)
        try:
            self.prompts: dict[str, str] = dict(self._review.class_by_prompt)
            self._index = JournalIndex(self.folder.journal, list(self.prompts))
            self._truth = None if truth is None else Truth(truth, self._review.class_of)
            self._forget()
            started = time.perf_counter()
            self.refresh()
            self.index_s = time.perf_counter() - started
        except BaseException:
            self._review.__exit__(None, None, None)
            raise

    def __exit__(self, *_: object) -> None:
        self._review.__exit__(None, None, None)
        self._index.close()

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
            self._mark_new()
            if self._truth is not None:
                self._judge_new(self._truth)

    def summary(self) -> dict[str, Any]:
        """Say how far the run is, and of each class what was decided, and what stays at each threshold."""
        with self._lock:
            columns, marks = self._index.columns, self._marks
            counts = counts_by_threshold(columns, marks)
            cells = np.bincount(marks.label * len(STATES) + marks.state, minlength=len(self.classes) * len(STATES))
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
                    for number, name in enumerate(self.classes)
                ],
            }

    def selection(self, wanted: Filter) -> list[int]:
        """Give the images that a filter lets through, in its order."""
        with self._lock:
            verdicts = None if self._truth is None else self._truth.verdicts
            return select(self._index.columns, self._marks, wanted, self.classes, verdicts).tolist()

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
            self._mark(image)

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
            self._mark(image)

    def set_threshold(self, class_name: str, score: float | None) -> None:
        """Drop undecided instances of a class that score less.

        Raises:
            UsageError: If the run has no such class.
            OutputError: If it can't be written.
        """
        with self._lock:
            if class_name not in self.classes:
                raise UsageError(f"the run has no class {class_name!r}; it has {', '.join(self.classes)}")
            self._review.set_threshold(class_name, score)
            self._take_thresholds()

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
                self._take_thresholds()
            else:
                self._mark(image)
            return event, image

    def _check(self, image: int) -> None:
        if not 0 <= image < self.n_images:
            raise UsageError(f"the run has no image number {image}; load the page again")

    def _forget(self) -> None:
        """Begin anew, with no image."""
        self.classes = list(dict.fromkeys(self.prompts.values()))
        none = np.zeros(0)
        small, whole = none.astype(np.uint8), none.astype(np.int32)
        self._marks = Marks(small, whole, none, small, whole)
        self._take_thresholds()
        if self._truth is not None:
            self._truth.clear()

    def _number(self, class_name: str) -> int:
        """Give a class's index; one that is new comes last."""
        if class_name not in self.classes:
            self.classes.append(class_name)
            self._take_thresholds()
        return self.classes.index(class_name)

    def _take_thresholds(self) -> None:
        thresholds = self._review.thresholds
        self.classes += [name for name in thresholds if name not in self.classes]
        values = np.array([thresholds.get(name, 0.0) for name in self.classes], dtype=np.float64)
        self._marks = replace(self._marks, threshold=values)

    def _own_numbers(self, rows: slice) -> Numbers:
        """Give the class of each instance's prompt."""
        by_prompt = [self._number(self.prompts.get(prompt, prompt)) for prompt in self._index.prompts]
        return np.array(by_prompt, dtype=np.int32)[self._index.columns.prompt[rows]]

    def _mark_new(self) -> None:
        """Mark images that the index has got."""
        columns, n_before = self._index.columns, len(self._marks.looked)
        if n_before == columns.n_images:
            return
        rows = slice(len(self._marks.state), columns.n_instances)
        label = self._own_numbers(rows)
        n_images, n_rows = columns.n_images - n_before, rows.stop - rows.start
        marks = self._marks
        self._marks = Marks(
            state=np.concatenate([marks.state, np.full(n_rows, UNDECIDED, np.uint8)]),
            label=np.concatenate([marks.label, label]),
            threshold=marks.threshold,
            looked=np.concatenate([marks.looked, np.zeros(n_images, np.uint8)]),
            added=np.concatenate([marks.added, np.zeros(n_images, np.int32)]),
        )
        reviewed = set(self._review.images)
        for image in range(n_before, columns.n_images) if reviewed else ():
            if columns.name(image) in reviewed:
                self._mark(image)

    def _mark(self, image: int) -> None:
        """Bring an image's marks up to what was decided."""
        columns, name = self._index.columns, self._index.columns.name(image)
        rows = columns.instances_of(image)
        made = self._review.decisions(name)
        state, label = np.full(rows.stop - rows.start, UNDECIDED, np.uint8), self._own_numbers(rows)
        for key, one in made.decided.items():
            if not isinstance(key, int) or key >= len(state):
                continue
            state[key] = REJECTED if not one.is_accepted else RELABELLED if one.class_name else ACCEPTED
            if one.class_name:
                label[key] = self._number(one.class_name)
        self._marks.state[rows], self._marks.label[rows] = state, label
        self._marks.looked[image] = made.is_looked_through
        decisions = (made.decided.get(one) for one in made.added)
        self._marks.added[image] = sum(one is None or one.is_accepted for one in decisions)

    @property
    def _has_masks(self) -> bool:
        return bool((self._index.columns.flags & Flag.HAS_MASK).any())

    def _judge_new(self, truth: Truth) -> None:
        """Compare images that the index has got with the truth."""
        for start in range(len(truth.verdicts.n_truths), self.n_images, _N_JUDGED_AT_ONCE):
            images = range(start, min(start + _N_JUDGED_AT_ONCE, self.n_images))
            lines = [self._index.line(image) for image in images]
            truth.find_images([one["file_name"] for one in lines], has_masks=self._has_masks)
            truth.judge(lines)
