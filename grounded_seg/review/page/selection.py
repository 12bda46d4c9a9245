"""Which images of a run are shown, and in which order: filters on the index's columns, and counts for thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from grounded_seg.review.page.journal_index import Bytes, Columns, Flag, Floats, Indices, Numbers
from grounded_seg.setting_types import CheckedSettings, Share

Flags: TypeAlias = npt.NDArray[np.bool_]

THRESHOLD_STEPS = 100
"""The page's thresholds are 0, 1/100 ... 1."""
UNDECIDED, ACCEPTED, REJECTED, RELABELLED = range(4)
STATES = ("undecided", "accepted", "rejected", "relabelled")
"""What was decided on an instance; relabelled is accepted under another label."""
UNJUDGED, RIGHT, WRONG = range(3)
VERDICTS = (None, "right", "wrong")
"""What the truth says; nothing about an instance on a crowd, or of a class that the truth hasn't."""


class Decided(StrEnum):
    """Instances by what was decided on them."""

    ANY = "any"
    UNDECIDED = "undecided"
    DECIDED = "decided"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RELABELLED = "relabelled"


class Shown(StrEnum):
    """Images as a whole."""

    ALL = "all"
    WITH = "with"
    """With an instance that stays."""
    WITHOUT = "without"
    SKIPPED = "skipped"


class Order(StrEnum):
    """The order of images."""

    RUN = "run"
    LOWEST = "lowest"
    """The lowest score first."""
    MOST = "most"
    """Most instances first."""
    WORST = "worst"
    """The lowest F1 with the truth first."""


@dataclass(frozen=True)
class Filter(CheckedSettings):
    """What an image is shown for: one of its instances is all that is asked for here."""

    class_name: str = ""
    """Empty for all classes."""
    min_score: Share = 0.0
    max_score: Share = 1.0
    min_mask: Share = 0.0
    max_mask: Share = 1.0
    leaves_box: bool = False
    touches_border: bool = False
    decided: Decided = Decided.ANY
    dropped: bool = False
    """Instances that a threshold drops count too."""
    name: str = ""
    """A part of the file name, in any case."""
    images: Shown = Shown.ALL
    order: Order = Order.RUN

    @property
    def is_about_instances(self) -> bool:
        """Tell whether an image needs an instance that fits, whatever was decided."""
        has_range = self.min_score > 0 or self.max_score < 1 or self.is_about_masks
        return bool(self.class_name) or has_range or self.leaves_box or self.touches_border

    @property
    def is_about_masks(self) -> bool:
        """Tell whether an instance needs a score of its mask."""
        return self.min_mask > 0 or self.max_mask < 1


@dataclass(frozen=True, eq=False)
class Marks:
    """What was decided on the n images and m instances of an index; changed in place."""

    state: Bytes
    """Index in `STATES`, (m,)."""
    label: Numbers
    """Index of an instance's class, the new one where it was relabelled, (m,)."""
    threshold: Floats
    """Of each class, (c,)."""
    looked: Bytes
    """1 where a whole image was accepted, (n,)."""
    added: Numbers
    """Instances that were added and aren't rejected, (n,)."""

    def stays(self, columns: Columns) -> Flags:
        """Tell which instances no threshold drops, (m,); a decision beats a threshold, that of a rejection too."""
        return np.asarray((columns.score >= self.threshold[self.label]) | (self.state != UNDECIDED))


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What the truth says about the m instances of n images."""

    verdict: Bytes
    """Index in `VERDICTS`, (m,)."""
    n_truths: Numbers
    """Objects to be found, (n,)."""

    def f1(self, columns: Columns, kept: Flags) -> Floats:
        """F1 at IoU .5 of each image, (n,), by the instances that are kept; 1 where nothing is there nor found."""
        n_right, n_wrong = (
            np.bincount(columns.image[kept & (self.verdict == one)], minlength=columns.n_images)
            for one in (RIGHT, WRONG)
        )
        total = n_right + n_wrong + self.n_truths
        return np.where(total > 0, 2 * n_right / np.maximum(total, 1), 1.0)


def select(
    columns: Columns, marks: Marks, wanted: Filter, classes: Sequence[str], verdicts: Verdicts | None = None
) -> Indices:
    """Give the images that a filter lets through, in its order; equal ones stay in the run's."""
    stays = marks.stays(columns)
    fits = _fitting(columns, marks, wanted, classes)
    if not wanted.dropped:
        fits &= stays
    found = np.flatnonzero(_shown(columns, marks, wanted, fits, stays))
    if wanted.order is Order.RUN:
        return found
    if wanted.order is Order.WORST and verdicts is not None:
        by = verdicts.f1(columns, stays & (marks.state != REJECTED))
    elif wanted.order is Order.LOWEST:
        # Where nothing fits there is no score: those come last.
        by = _lowest(columns, np.where(fits, columns.score, np.inf))
    else:
        by = -np.bincount(columns.image[fits], minlength=columns.n_images).astype(np.float64)
    return found[np.argsort(by[found], kind="stable")]


def counts_by_threshold(columns: Columns, marks: Marks) -> npt.NDArray[np.int64]:
    """Count the instances of each class that stay at each threshold, (c, steps + 1): accepted ones at any."""
    n_classes = len(marks.threshold)
    # A score passes all thresholds up to the last one that isn't above it; the rounding is that of the page's texts.
    thresholds = np.arange(THRESHOLD_STEPS + 1) / THRESHOLD_STEPS
    highest = np.searchsorted(thresholds, columns.score, side="right") - 1
    is_accepted = (marks.state == ACCEPTED) | (marks.state == RELABELLED)
    highest[is_accepted] = THRESHOLD_STEPS
    counted = marks.state != REJECTED
    cell = marks.label[counted] * (THRESHOLD_STEPS + 1) + highest[counted]
    table = np.bincount(cell, minlength=n_classes * (THRESHOLD_STEPS + 1)).reshape(n_classes, THRESHOLD_STEPS + 1)
    return np.cumsum(table[:, ::-1], axis=1)[:, ::-1]


def _fitting(columns: Columns, marks: Marks, wanted: Filter, classes: Sequence[str]) -> Flags:
    """Tell which instances are what is asked for, (m,)."""
    fits = np.asarray((columns.score >= wanted.min_score) & (columns.score <= wanted.max_score))
    if wanted.is_about_masks:
        # Without a mask there is no such score, and both comparisons are false.
        fits &= (columns.mask_score >= wanted.min_mask) & (columns.mask_score <= wanted.max_mask)
    for flag, is_wanted in ((Flag.LEAVES_BOX, wanted.leaves_box), (Flag.TOUCHES_BORDER, wanted.touches_border)):
        if is_wanted:
            fits &= (columns.flags & flag) != 0
    if wanted.class_name:
        fits &= marks.label == (classes.index(wanted.class_name) if wanted.class_name in classes else -1)
    if wanted.decided is Decided.DECIDED:
        fits &= marks.state != UNDECIDED
    elif wanted.decided is not Decided.ANY:
        fits &= marks.state == STATES.index(wanted.decided)
    return fits


def _shown(columns: Columns, marks: Marks, wanted: Filter, fits: Flags, stays: Flags) -> Flags:
    """Tell which images are shown, (n,)."""
    skipped = columns.skipped != 0
    has_any = _any(columns, stays & (marks.state != REJECTED)) | (marks.added > 0)
    shown = np.ones(columns.n_images, np.bool_)
    if wanted.is_about_instances or wanted.decided is not Decided.ANY:
        shown = _any(columns, fits)
    if not wanted.is_about_instances and wanted.decided in (Decided.UNDECIDED, Decided.DECIDED):
        # An image on which nothing stays is decided when it was looked through.
        is_empty = ~_any(columns, stays) & ~skipped
        shown |= is_empty & ((marks.looked != 0) == (wanted.decided is Decided.DECIDED))
    if wanted.images is Shown.WITH:
        shown &= has_any
    elif wanted.images is Shown.WITHOUT:
        shown &= ~has_any & ~skipped
    elif wanted.images is Shown.SKIPPED:
        shown &= skipped
    if wanted.name:
        shown &= _named(columns, wanted.name)
    return shown


def _any(columns: Columns, rows: Flags) -> Flags:
    """Tell which images have one of these instances, (n,)."""
    return np.bincount(columns.image[rows], minlength=columns.n_images) > 0


def _lowest(columns: Columns, values: Floats) -> Floats:
    """Give the smallest value of each image's instances, (n,); infinite where it has none."""
    lowest = np.full(columns.n_images, np.inf)
    has_some = columns.first[1:] > columns.first[:-1]
    if has_some.any():
        lowest[has_some] = np.minimum.reduceat(values, columns.first[:-1][has_some])
    return lowest


def _named(columns: Columns, part: str) -> Flags:
    """Tell in whose name a text is, (n,); letters of ASCII in any case."""
    text, wanted = columns.names.lower(), part.encode("utf-8", "surrogatepass").lower().replace(b"\0", b"")
    found = np.zeros(columns.n_images, np.bool_)
    at = text.find(wanted)
    while wanted and at >= 0:
        image = int(np.searchsorted(columns.name_start, at, side="right")) - 1
        found[image] = True
        at = text.find(wanted, int(columns.name_start[image + 1]))
    return found
