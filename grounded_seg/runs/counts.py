"""What a run came to so far: counts and seconds that grow while it goes on."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from grounded_seg.coco.schema import JournalLine
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import ImageSkipped, RunReport
from grounded_seg.runs.manifest import Counts


@dataclass
class Tally:
    """Counts what is in the journal, and the seconds that it took since this run began or went on."""

    is_resumed: bool = False
    n_done: int = 0
    n_skipped: int = 0
    n_instances: int = 0
    n_empty_masks: int = 0
    n_unusable_boxes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def n_images(self) -> int:
        """Lines in the journal."""
        return self.n_done + self.n_skipped

    def add_line(self, line: JournalLine) -> None:
        """Count what a line of the journal says."""
        if line["status"] == "skipped":
            self.n_skipped += 1
        else:
            self.n_done += 1
            self.n_instances += len(line["instances"])

    def add_outcome(self, outcome: PromptedResult | ImageSkipped) -> None:
        """Count what no line says: what was dropped, and the models' seconds."""
        if isinstance(outcome, PromptedResult):
            self.n_empty_masks += outcome.n_empty_masks
            self.n_unusable_boxes += outcome.n_unusable_boxes
            self.add_seconds(outcome.seconds)

    def add_seconds(self, seconds: Mapping[str, float]) -> None:
        """Add the seconds of some stages."""
        for stage, more in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + more

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of what is done in the block."""
        started = time.perf_counter()
        yield
        self.add_seconds({stage: time.perf_counter() - started})

    def counts(self) -> Counts:
        """Give the counts as a finished run's manifest has them."""
        return Counts(
            images=self.n_images,
            done=self.n_done,
            skipped=self.n_skipped,
            instances=self.n_instances,
            empty_masks=None if self.is_resumed else self.n_empty_masks,
            unusable_boxes=None if self.is_resumed else self.n_unusable_boxes,
        )

    def report(self) -> RunReport:
        """Give the sum of a finished run."""
        return RunReport(
            n_done=self.n_done,
            n_skipped=self.n_skipped,
            n_instances=self.n_instances,
            seconds=self.seconds["total"],
        )
