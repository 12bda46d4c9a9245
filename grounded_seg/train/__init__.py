"""Tuning of the detector: a data set goes in, an adapter that `run` loads comes out, with a report.

`training` reads the `data`, prepares and runs the loop (`fit`), and measures base against tuned (`measure`).
"""

from typing import TYPE_CHECKING

from grounded_seg.train.settings import TrainSettings

if TYPE_CHECKING:
    from grounded_seg.train.measure.answers import evaluate
    from grounded_seg.train.training import train

__all__ = ["TrainSettings", "evaluate", "train"]


def __getattr__(name: str) -> object:
    """Import what needs torch, which takes seconds, only when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from grounded_seg.train import training
    from grounded_seg.train.measure import answers

    return getattr(answers if name == "evaluate" else training, name)
