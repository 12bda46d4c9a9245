"""Comparison of two reports on one data set: what changed, how sure that is, and on which images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from grounded_seg.errors import InputError
from grounded_seg.scoring.columns import Floats
from grounded_seg.scoring.json_report import SavedScores
from grounded_seg.scoring.matching import image_scores
from grounded_seg.scoring.measure import Figures, Interval, intervals, presence_figures, stage_figures

_TITLES = {
    "boxes": "Boxes",
    "masks": "Masks",
    "masks_given_true_boxes": "Masks given the true boxes",
    "presence": "Presence",
}
_SHOWN_IMAGES = 10


@dataclass(frozen=True)
class FigureChange:
    """One figure of both reports."""

    part: str
    figure: str
    first: float | None
    second: float | None
    interval: Interval | None
    """95 % interval of the difference; None if not measured."""

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
    """Most changed first, as the worse."""
    worse: tuple[ImageChange, ...]


def compare(first: SavedScores, second: SavedScores, n_resamples: int = 1000) -> Comparison:
    """Compare two reports on one data set, figure by figure and image by image.

    Both are resampled alike (a paired bootstrap), so that images that are hard for both don't hide a difference.
    """
    _check_same_data_set(first, second)
    n_images = len(first.file_names)
    ones = np.ones(n_images)
    changes: list[FigureChange] = []
    parts = [name for name in _TITLES if name in {"presence", *(first.matches.keys() & second.matches.keys())}]
    for part in parts:
        before, after = _figures(first, part, ones), _figures(second, part, ones)

        def differences(weights: Floats, part: str = part) -> Figures:
            one, other = _figures(first, part, weights), _figures(second, part, weights)
            return {name: _less(other[name], one[name]) for name in one}

        spans = intervals(differences, n_images, n_resamples)
        changes += [FigureChange(part, name, before[name], after[name], spans.get(name)) for name in before]
    if first.presence_on != second.presence_on:
        # cgF1 says how well boxes or masks fit, and not only that they are there.
        changes = [FigureChange(one.part, "cgF1", None, None, None) if one.figure == "cgF1" else one for one in changes]
    stage = "masks" if "masks" in parts else "boxes"
    sides = [image_scores(one.matches[stage], one.score_threshold).f1.tolist() for one in (first, second)]
    images = [ImageChange(*row) for row in zip(first.file_names, *sides, strict=True)]
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
    """Markdown of a comparison: a table for each part, then the images that changed most."""
    intro = f"Figures of {comparison.first_name} and {comparison.second_name} on {comparison.n_images} images"
    if comparison.n_resamples:
        span = f"95 % interval of the difference over {comparison.n_resamples} paired bootstrap resamples"
        intro += f"; in brackets the {span}, bold where it leaves out 0"
    lines = [f"{intro}.", *(f"\n**Not alike:** {note}" for note in comparison.notes)]
    for part, title in _TITLES.items():
        changes = [one for one in comparison.figures if one.part == part]
        if changes:
            lines += ["", f"## {title}", "", *figure_table(changes)]
    lines += _image_lines("better", comparison.better) + _image_lines("worse", comparison.worse)
    return "\n".join(lines) + "\n"


def figure_table(
    changes: Sequence[FigureChange], what: str = "figure", first: str = "first", second: str = "second"
) -> list[str]:
    """Lines of a Markdown table: figures of two sides beside each other, under these titles."""
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
    for one in images[:_SHOWN_IMAGES]:
        lines.append(f"| {_escaped(one.file_name)} | {one.first:.2f} | {one.second:.2f} |")
    if len(images) > _SHOWN_IMAGES:
        lines += ["", f"and {len(images) - _SHOWN_IMAGES} more"]
    return lines


def _check_same_data_set(first: SavedScores, second: SavedScores) -> None:
    pairs = [(matches, second.matches[name]) for name, matches in first.matches.items() if name in second.matches]
    if first.file_names != second.file_names or not all(
        one.index.names == other.index.names
        and np.array_equal(one.truth_image, other.truth_image)
        and np.array_equal(one.truth_category, other.truth_category)
        for one, other in pairs
    ):
        raise InputError(
            f"{first.path} and {second.path} were measured on different data sets; run eval on the same file for both"
        )


def _unlike(first: SavedScores, second: SavedScores) -> Iterator[str]:
    """What differs besides the predictions, and which figures that moves."""
    one, other = first.tallies, second.tallies
    if not (np.array_equal(one.image, other.image) and np.array_equal(one.category, other.category)):
        counts = f"{first.path.name} is about {len(one.image)} questions, {second.path.name} about {len(other.image)}"
        yield f"{counts} (see `--absent` of eval); fewer questions leave fewer chances to be wrong, in all figures."
    if first.score_threshold != second.score_threshold:
        yield (
            f"the minimum score for presence and the images' F1 is {first.score_threshold:g} in {first.path.name}, "
            f"{second.score_threshold:g} in {second.path.name}."
        )
    calibrations = [one.made_with.get("calibration") for one in (first, second)]
    if calibrations[0] != calibrations[1]:
        named = ("scores as they are" if one is None else f"probabilities of {one['name']}" for one in calibrations)
        said = ", ".join(f"{one.path.name} has {what}" for one, what in zip((first, second), named, strict=True))
        yield f"{said}; a minimum score means something else in each."
    if first.presence_on != second.presence_on:
        yield (
            f"presence was measured on {first.presence_on} in {first.path.name}, on {second.presence_on} in "
            f"{second.path.name}; its cgF1 is left out."
        )
    if first.cut_at is not None and second.cut_at is not None and first.cut_at != second.cut_at:
        cuts = (f"scored {one.cut_at:g} or more" if one.cut_at else "of any score" for one in (first, second))
        names = (first.path.name, second.path.name)
        said = ", ".join(f"{name} has predictions {cut}" for name, cut in zip(names, cuts, strict=True))
        yield f"{said}; AP and recall lack what was cut."
    if None not in (first.truth_sha256, second.truth_sha256) and first.truth_sha256 != second.truth_sha256:
        yield (
            "the truth: the same images and as many objects, but sizes, boxes, areas or masks of the data set differ, "
            "which moves all figures."
        )


def _figures(saved: SavedScores, part: str, weights: Floats) -> Figures:
    if part == "presence":
        return presence_figures(saved.presence_by_image, weights)
    return stage_figures(saved.matches[part], weights)


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _escaped(text: str) -> str:
    """Keep a file's name from ending a table's cell or line."""
    return "".join(character if character.isprintable() else "?" for character in text).replace("|", "\\|")
