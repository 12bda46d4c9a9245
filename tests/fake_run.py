"""The command line in a process of its own, with models that need no weights and take a little time.

    python tests/fake_run.py run "red car" PHOTOS -o OUT --resume

To be killed, interrupted, or run twice at once; `SECONDS_PER_BATCH` in the environment says how slow the models are.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from fakes import ColourDetector, InnerSegmenter, found_models

from grounded_seg.cli import main
from grounded_seg.pipeline.chain import Chain
from grounded_seg.records import Detection, Image
from grounded_seg.runs import run as runs


class SlowDetector(ColourDetector):
    """Takes its time."""

    def detect(
        self, images: Sequence[Image], prompts: Sequence[str], class_names: Sequence[str] | None = None, **options: Any
    ) -> list[tuple[Detection, ...]]:
        time.sleep(float(os.environ.get("SECONDS_PER_BATCH", "0.01")))
        return super().detect(images, prompts, **options)


def run() -> None:
    """Put the slow models in place of real ones, and run the command."""
    runs.find_models = found_models
    runs.load_chain = lambda *_, **__: Chain(SlowDetector(), InnerSegmenter())  # type: ignore[assignment]
    main(sys.argv[1:])


if __name__ == "__main__":
    run()
