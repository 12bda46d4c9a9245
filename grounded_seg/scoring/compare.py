"""Comparison of two reports on one data set: what changed, how sure that is, and on which images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grounded_seg.errors import InputError
from grounded_seg.scoring.average_precision import precision_recall, twelve_figures
from grounded_seg.scoring.intervals import Figures, Interval, intervals
from grounded_seg.scoring.json_report import SavedScores
from grounded_seg.scoring.matching import Matches, image_scores
from grounded_seg.scoring.measure import presence_figures

_TITLES = {
    "boxes": "Boxes",
    "masks": "Masks",
    "masks_given_true_boxes": "Masks given the true boxes",
    "presence": "Presence",
}
_ON_SHAPES = ("cgF1",)
"""Presence figures that say how well boxes or masks fit, and not only that they are there."""
_SHOWN_IMAGES = 10


@dataclass(frozen=True)
class FigureChange:
    """One figure of both reports."""

    part: str
    """boxes, masks, masks_given_true_boxes or presence."""
    figure: str
    first: float | None
    second: float | None
    interval: Interval | None
    """95 % interval of the difference, second less first, resampled alike for both; None if not measured."""

    @property
    def difference(self) -> float | None:
        """Second less first."""
        return None if self.first is None or self.second is None else self.second - self.first

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclass(frozen=True)
class ImageChange:
    """An image whose F1 at IoU .5 changed."""

    file_name: str
    first: float
    second: float


@dataclass(frozen=True)
class Comparison:
    """Changes from the first report to the second."""

    first_name: str
    second_name: str
    n_images: int
    n_resamples: int
    notes: tuple[str, ...]
    """Differences in how the two were measured, a line each."""
    figures: tuple[FigureChange, ...]
    better: tuple[ImageChange, ...]
    """Most improved first."""
    worse: tuple[ImageChange, ...]
    """Most worsened first."""


def compare(first: SavedScores, second: SavedScores, n_resamples: int = 1000) -> Comparison:
    """Compare two reports, figure by figure and image by image.

    Both are resampled alike (a paired bootstrap), so that images that are hard for both don't hide a difference.

    Raises:
        InputError: If they are about different data sets.
    """
    _check_same_data_set(first, second)
    n_images = len(first.file_names)
    ones = np.ones(n_images)
    changes: list[FigureChange] = []
    parts = [name for name in _TITLES if name == "presence" or (name in first.matches and name in second.matches)]
    for part in parts:
        before, after = _figures(first, part, ones), _figures(second, part, ones)

        def differences(weights: npt.NDArray[np.float64], part: str = part) -> Figures:
            one, other = _figures(first, part, weights), _figures(second, part, weights)
            return {name: _less(other[name], one[name]) for name in one}

        spans = intervals(differences, n_images, n_resamples)
        unlike = _ON_SHAPES if part == "presence" and first.presence_on != second.presence_on else ()
        changes += [
            FigureChange(part, name, None, None, None)
            if name in unlike
            else FigureChange(part, name, before[name], after[name], spans.get(name))
            for name in before
        ]
    stage = "masks" if "masks" in parts else "boxes"
    images = _image_changes(first, second, stage)
    return Comparison(
        first_name=first.path.name,
        second_name=second.path.name,
        n_images=n_images,
        n_resamples=n_resamples,
        notes=tuple(_unlike(first, second)),
        figures=tuple(changes),
        better=tuple(sorted((one for one in images if one.second > one.first), key=lambda o: o.first - o.second)),
        worse=tuple(sorted((one for one in images if one.second < one.first), key=lambda o: o.second - o.first)),
    )


def markdown_of(comparison: Comparison) -> str:
    """Write the comparison as Markdown: a table for each part, then the images that changed most."""
    intro = f"Figures of {comparison.first_name} and {comparison.second_name} on {comparison.n_images} images"
    if comparison.n_resamples:
        intro += (
            f"; in brackets the 95 % interval of the difference over {comparison.n_resamples} paired bootstrap "
            "resamples, bold where it leaves out 0"
        )
    lines = [f"{intro}."]
    for note in comparison.notes:
        lines += ["", f"**Not alike:** {note}"]
    for part, title in _TITLES.items():
        changes = [one for one in comparison.figures if one.part == part]
        if changes:
            lines += ["", f"## {title}", "", *figure_table(changes)]
    lines += _image_lines("better", comparison.better) + _image_lines("worse", comparison.worse)
    return "\n".join(lines) + "\n"


def figure_table(
    changes: Sequence[FigureChange], what: str = "figure", first: str = "first", second: str = "second"
) -> list[str]:
    """Write figures of two sides beside each other: the lines of a Markdown table, under these titles."""
    return [f"| {what} | {first} | {second} | difference |", "|---|---:|---:|---:|", *map(_row, changes)]


def _row(change: FigureChange) -> str:
    difference = "-" if change.difference is None else f"{change.difference:+.3f}"
    if change.is_clear:
        difference = f"**{difference}**"
    if change.interval is not None:
        difference += f" [{change.interval[0]:+.3f}, {change.interval[1]:+.3f}]"
    return f"| {change.figure} | {_shown(change.first)} | {_shown(change.second)} | {difference} |"


def _image_lines(word: str, images: Sequence[ImageChange]) -> list[str]:
    lines = ["", f"## Images that got {word}: {len(images)}"]
    if images:
        lines += ["", "| image | F1 first | F1 second |", "|---|---:|---:|"]
        lines += [
            f"| {_escaped(one.file_name)} | {one.first:.2f} | {one.second:.2f} |" for one in images[:_SHOWN_IMAGES]
        ]
    if len(images) > _SHOWN_IMAGES:
        lines += ["", f"and {len(images) - _SHOWN_IMAGES} more"]
    return lines


def _check_same_data_set(first: SavedScores, second: SavedScores) -> None:
    same = first.file_names == second.file_names and all(
        _same_truths(matches, second.matches[name]) for name, matches in first.matches.items() if name in second.matches
    )
    if not same:
        raise InputError(
            f"{first.path} and {second.path} were measured on different data sets; run eval on the same file for both"
        )


def _unlike(first: SavedScores, second: SavedScores) -> Iterator[str]:
    """Say what differs besides the predictions, and which figures that moves."""
    one, other = first.tallies, second.tallies
    if not (np.array_equal(one.image, other.image) and np.array_equal(one.category, other.category)):
        yield (
            f"{first.path.name} is about {len(one.image)} questions, {second.path.name} about {len(other.image)} (see "
            "`--absent` of eval); fewer questions leave fewer chances to be wrong, in all figures."
        )
    if first.score_threshold != second.score_threshold:
        yield (
            f"the minimum score for presence and the images' F1 is {first.score_threshold:g} in {first.path.name}, "
            f"{second.score_threshold:g} in {second.path.name}."
        )
    if first.presence_on != second.presence_on:
        yield (
            f"presence was measured on {first.presence_on} in {first.path.name}, on {second.presence_on} in "
            f"{second.path.name}; its cgF1 is left out."
        )
    if first.cut_at is not None and second.cut_at is not None and first.cut_at != second.cut_at:
        yield (
            f"{_cut(first.path.name, first.cut_at)}, {_cut(second.path.name, second.cut_at)}; AP and recall lack "
            "what was cut."
        )
    if None not in (first.truth_sha256, second.truth_sha256) and first.truth_sha256 != second.truth_sha256:
        yield (
            "the truth: the same images and as many objects, but sizes, boxes, areas or masks of the data set differ, "
            "which moves all figures."
        )


def _cut(name: str, score: float) -> str:
    return f"{name} has predictions " + (f"scored {score:g} or more" if score else "of any score")


def _same_truths(first: Matches, second: Matches) -> bool:
    return (
        first.index.names == second.index.names
        and np.array_equal(first.truth_image, second.truth_image)
        and np.array_equal(first.truth_category, second.truth_category)
    )


def _figures(saved: SavedScores, part: str, weights: npt.NDArray[np.float64]) -> Figures:
    if part == "presence":
        return presence_figures(saved.presence_by_image, weights)
    return twelve_figures(precision_recall(saved.matches[part], weights))


def _image_changes(first: SavedScores, second: SavedScores, stage: str) -> list[ImageChange]:
    before = image_scores(first.matches[stage], first.score_threshold).f1.tolist()
    after = image_scores(second.matches[stage], second.score_threshold).f1.tolist()
    return [ImageChange(*row) for row in zip(first.file_names, before, after, strict=True)]


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _escaped(text: str) -> str:
    """Keep a file's name from ending a table's cell or line."""
    return "".join(character if character.isprintable() else "?" for character in text).replace("|", "\\|")
