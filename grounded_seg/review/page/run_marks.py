"""What was decided on a run, as columns beside those of its index."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from grounded_seg.review.decisions_of_run import Review
from grounded_seg.review.page.journal_index import JournalIndex, Numbers
from grounded_seg.review.page.selection import ACCEPTED, REJECTED, RELABELLED, UNDECIDED, Marks


class RunMarks:
    """Marks of the images and instances of an index, and the run's classes."""

    def __init__(self, index: JournalIndex, review: Review, prompts: Mapping[str, str]) -> None:
        """Begin with no image; `prompts` gives the class of each prompt."""
        self._index, self._review, self._prompts = index, review, prompts
        self.clear()

    def clear(self) -> None:
        """Begin anew, with no image."""
        self.classes = list(dict.fromkeys(self._prompts.values()))
        none = np.zeros(0)
        small, whole = none.astype(np.uint8), none.astype(np.int32)
        self.marks = Marks(small, whole, none, small, whole)
        self.take_thresholds()

    def _number(self, class_name: str) -> int:
        """Give a class's index; one that is new comes last."""
        if class_name not in self.classes:
            self.classes.append(class_name)
            self.take_thresholds()
        return self.classes.index(class_name)

    def take_thresholds(self) -> None:
        """Bring the thresholds up to what was decided."""
        thresholds = self._review.thresholds
        self.classes += [name for name in thresholds if name not in self.classes]
        values = np.array([thresholds.get(name, 0.0) for name in self.classes], dtype=np.float64)
        self.marks = replace(self.marks, threshold=values)

    def _own_numbers(self, rows: slice) -> Numbers:
        """Give the class of each instance's prompt."""
        prompts, place = np.unique(self._index.columns.prompt[rows], return_inverse=True)
        names = [self._index.prompts[prompt] for prompt in prompts.tolist()]
        numbers = [self._number(self._prompts.get(name, name)) for name in names]
        return np.array(numbers, dtype=np.int32)[place]

    def add_new(self) -> None:
        """Mark images that the index has got."""
        columns, n_before = self._index.columns, len(self.marks.looked)
        if n_before == columns.n_images:
            return
        rows = slice(len(self.marks.state), columns.n_instances)
        label = self._own_numbers(rows)
        n_images, n_rows = columns.n_images - n_before, rows.stop - rows.start
        marks = self.marks
        self.marks = Marks(
            state=np.concatenate([marks.state, np.full(n_rows, UNDECIDED, np.uint8)]),
            label=np.concatenate([marks.label, label]),
            threshold=marks.threshold,
            looked=np.concatenate([marks.looked, np.zeros(n_images, np.uint8)]),
            added=np.concatenate([marks.added, np.zeros(n_images, np.int32)]),
        )
        reviewed = set(self._review.images)
        for image in range(n_before, columns.n_images) if reviewed else ():
            if columns.name(image) in reviewed:
                self.mark(image)

    def mark(self, image: int) -> None:
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
        self.marks.state[rows], self.marks.label[rows] = state, label
        self.marks.looked[image] = made.is_looked_through
        decisions = (made.decided.get(one) for one in made.added)
        self.marks.added[image] = sum(one is None or one.is_accepted for one in decisions)
