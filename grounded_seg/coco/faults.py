"""Faults of a COCO file: the rules by name, and the place where one is broken."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """The file is wrong: some reader will stop, or take it for something else."""
    WARNING = "warning"
    """The file is right, but a reader loses something, or it is not what people mean."""


WARNINGS = frozenset(
    {"polygon-outside", "bbox-off", "crowd-with-polygons", "duplicate-annotation", "same-base-name", "reader"}
)
"""The rules that are no errors."""


@dataclass(frozen=True)
class Fault:
    """One place where a rule is broken."""

    rule: str
    """The rule's name, as `rle-size-wrong`."""
    place: str
    """A JSON path as `annotations[3].bbox`, or a line and column where there is no JSON."""
    message: str
    """What is there, and what should be."""

    @property
    def severity(self) -> Severity:
        """The rule's."""
        return Severity.WARNING if self.rule in WARNINGS else Severity.ERROR
