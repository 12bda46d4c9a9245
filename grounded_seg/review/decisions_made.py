"""What the lines of a review come to: the decision about each instance, images looked through, thresholds."""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from grounded_seg.coco.schema import JournalInstance, JournalLine
from grounded_seg.review.decisions import Event, Key, What


@dataclass(frozen=True)
class Decision:
    """What was decided about an instance."""

    is_accepted: bool
    class_name: str | None = None
    """The class that it was given instead of its own."""


@cache
def decision(what: What, class_name: str | None) -> Decision | None:
    """Decision of a line, one object for all that are alike; None where it takes a decision back."""
    return None if what is What.CLEAR else Decision(what is not What.REJECT, class_name)


@dataclass(slots=True)
class ImageDecisions:
    """What was decided about an image; memory holds one for each image that was decided on."""

    decided: dict[Key, Decision] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)
    """Numbers of the events that added instances, by their ids."""
    is_looked_through: bool = False
    """It was accepted as a whole, whether anything is on it or not."""
    numbers: "array[int]" = field(default_factory=lambda: array("I"))
    """Numbers of the events about it, undone ones too."""

    def clear(self) -> None:
        """Take out all but the numbers of the events."""
        self.decided, self.added, self.is_looked_through = {}, {}, False

    def apply(self, number: int, event: Event) -> None:
        """Let an event about this image hold, and be the later one."""
        if event.what is What.ADD:
            self.added[event.id] = number
            return
        if event.what is What.ACCEPT and not event.instances:
            self.is_looked_through = True
        made = decision(event.what, event.class_name)
        for key in event.instances:
            if made is None:
                self.decided.pop(key, None)
            else:
                self.decided[key] = made

    @property
    def was_seen(self) -> bool:
        """Whether somebody decided anything about it.

        If so it is settled unless an instance is undecided that no threshold leaves out.
        """
        return self.is_looked_through or any(isinstance(key, int) or key in self.added for key in self.decided)


@dataclass(frozen=True)
class ReviewedInstance:
    """An instance with what was decided about it."""

    key: Key
    instance: JournalInstance
    """As in the journal, or as it was added."""
    own_class: str
    """The class of its prompt, or that it was added with."""
    decision: Decision | None
    """None for an undecided one."""

    @property
    def class_name(self) -> str:
        """The class that it has now."""
        return (self.decision and self.decision.class_name) or self.own_class

    @property
    def is_new(self) -> bool:
        """Whether it was added."""
        return isinstance(self.key, str)

    @property
    def is_accepted(self) -> bool:
        """Whether it was accepted or relabelled."""
        return self.decision is not None and self.decision.is_accepted

    @property
    def is_rejected(self) -> bool:
        """Whether it was rejected."""
        return self.decision is not None and not self.decision.is_accepted

    def is_below(self, thresholds: Mapping[str, float]) -> bool:
        """Whether a threshold leaves it out: a decision beats any."""
        return self.decision is None and self.instance["score"] < thresholds.get(self.own_class, 0.0)


@dataclass(frozen=True)
class ReviewedImage:
    """A line of the journal with what was decided about it."""

    line: JournalLine
    instances: tuple[ReviewedInstance, ...]
    """Those of the line in its order, then those that were added."""
    is_looked_through: bool

    def is_settled(self, thresholds: Mapping[str, float]) -> bool:
        """Whether nobody has to look at it again: somebody has, and no instance is undecided that a threshold leaves.

        Without this look, what a threshold leaves out isn't taken for rejected.
        """
        was_seen = self.is_looked_through or any(one.decision is not None for one in self.instances)
        return was_seen and all(one.decision is not None or one.is_below(thresholds) for one in self.instances)

    def __iter__(self) -> Iterator[ReviewedInstance]:
        return iter(self.instances)
