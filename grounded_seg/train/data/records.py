"""What a data set becomes: images with boxes, and questions with their answers as text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from grounded_seg.records import BoxXyxy, ImageSize, RunLength

_N_FAULTS_SHOWN = 20


@dataclass(frozen=True)
class LabelledBox:
    """An object that is to be found."""

    label: str
    box_xyxy: BoxXyxy
    mask: RunLength | None = None
    """Where the data set has one: not learnt from, but measured in the report."""


@dataclass(frozen=True)
class BoxExample:
    """An image and all objects of the data set's classes on it; none for a background image."""

    image: Path
    size: ImageSize
    """Of the upright image, in pixels."""
    boxes: tuple[LabelledBox, ...]
    source: str
    """File and line, as `train/annotations.jsonl:7`."""
    unsure: frozenset[str] = frozenset()
    """Classes of which there are more here than `boxes` has, as with COCO's crowds: never asked about."""
    rejected: frozenset[str] = frozenset()
    """Prompts that people rejected every box of here: asked about in each epoch, as negatives."""


@dataclass(frozen=True)
class TextExample:
    """An image, a question and the answer, as given."""

    image: Path
    size: ImageSize
    question: str
    answer: str
    """May hold location tokens."""
    source: str


Example: TypeAlias = BoxExample | TextExample


@dataclass(frozen=True)
class Fault:
    """A row of a data set that can't be used."""

    source: str
    """File and line."""
    what: str
    image: Path | None = None
    """Where the row would have listed boxes of an image: what else is known of these is incomplete."""

    def __str__(self) -> str:
        return f"{self.source}: {self.what}"


def fault_lines(faults: Sequence[Fault]) -> list[str]:
    """Give a line for each of the first faults, and one for the others."""
    lines = [f"left out: {fault}" for fault in faults[:_N_FAULTS_SHOWN]]
    n_more = len(faults) - _N_FAULTS_SHOWN
    return lines if n_more <= 0 else [*lines, f"and {n_more} more rows were left out"]


@dataclass(frozen=True)
class SplitData:
    """The examples of one split."""

    examples: tuple[Example, ...] = ()
    faults: tuple[Fault, ...] = ()


def split_from(rows: Sequence[Example | Fault]) -> SplitData:
    """Sort the rows of a split into examples and faults."""
    examples = tuple(row for row in rows if not isinstance(row, Fault))
    return SplitData(examples, tuple(row for row in rows if isinstance(row, Fault)))


@dataclass(frozen=True)
class TrainingData:
    """A data set as it is learnt from."""

    train: SplitData
    valid: SplitData
    test: SplitData
    classes: tuple[str, ...]
    """Of all boxes, in the data set's own order."""
    notes: tuple[str, ...] = ()
    """What was read in spite of its form, a line each."""

    @property
    def splits(self) -> dict[str, SplitData]:
        """Each split by its name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All rows that were left out, each once, also where splits share images."""
        return tuple(dict.fromkeys(fault for split in self.splits.values() for fault in split.faults))


@dataclass(frozen=True)
class Question:
    """One thing asked of one image, with its true answer."""

    example: Example
    text: str
    answer: str
    """With location tokens; empty for what isn't there."""
    prompt: str = ""
    """The class that is asked for; empty where it isn't one class."""
