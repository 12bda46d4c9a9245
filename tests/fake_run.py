"""The command line in a process of its own, with models that need no weights and take a little time.

    python tests/fake_run.py run "red car" PHOTOS -o OUT --resume

To be killed, interrupted, or run twice at once; `SECONDS_PER_BATCH` in the environment says how slow the models are.
"""

import os
import sys
import time
from collections.abc import Sequence

from fakes import ColourDetector, InnerSegmenter

from grounded_seg.cli import main
from grounded_seg.pipeline.chain import GroundedSegmenter
from grounded_seg.records import Detection, Image
from grounded_seg.runs import run as batch


class SlowDetector(ColourDetector):
    """Takes its time."""

    def detect(
        self, images: Sequence[Image], prompts: Sequence[str], class_names: Sequence[str] | None = None
    ) -> list[tuple[Detection, ...]]:
        time.sleep(float(os.environ.get("SECONDS_PER_BATCH", "0.01")))
        return super().detect(images, prompts)


def run() -> None:
    """Put the slow models in place of real ones, and run the command."""
    batch.find_models = lambda *_, **__: None  # type: ignore[assignment]
    GroundedSegmenter.from_settings = lambda *_, **__: GroundedSegmenter(  # type: ignore[method-assign]
        SlowDetector(), InnerSegmenter()
    )
    main(sys.argv[1:])


if __name__ == "__main__":
    run()
