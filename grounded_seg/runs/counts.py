"""What a run came to so far: counts and seconds that grow while it proceeds."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from grounded_seg.coco.schema import JournalLine


@dataclass
class Counts:
    """Counts what is in the journal, and the seconds that it took since this run began or was resumed."""

    is_resumed: bool = False
    n_done: int = 0
    n_skipped: int = 0
    n_instances: int = 0
    n_empty_masks: int = 0
    """Detections dropped because their mask came out empty or too small."""
    n_unusable_boxes: int = 0
    """Likewise, because their box isn't finite, has no area, or lies outside the image."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each stage, and `total`. Reading and writing run beside the models, on threads whose seconds add up."""

    @property
    def n_images(self) -> int:
        """Images done and skipped."""
        return self.n_done + self.n_skipped

    @property
    def exit_code(self) -> int:
        """0 when every image was done, 1 when some or all were skipped."""
        return int(self.n_skipped > 0)

    def add_line(self, line: JournalLine) -> None:
        """Count what a line of the journal says."""
        if line["status"] == "skipped":
            self.n_skipped += 1
        else:
            self.n_done += 1
            self.n_instances += len(line["instances"])

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

    def as_json(self) -> dict[str, Any]:
        """Give the counts as `run.json` has them; what was dropped before a run was resumed isn't known."""
        return {
            "images": self.n_images,
            "done": self.n_done,
            "skipped": self.n_skipped,
            "instances": self.n_instances,
            "empty_masks": None if self.is_resumed else self.n_empty_masks,
            "unusable_boxes": None if self.is_resumed else self.n_unusable_boxes,
        }
