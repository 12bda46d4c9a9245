"""Tuning of the detector: a data set goes in, an adapter that `run` loads comes out, with a report.

Straight forward: `dataset` (`jsonl_rows`, `coco_rows`, `yolo_rows`, `checks`) -> `questions` -> `samples` (`augment`)
-> `trainer` (`lora`, `loss`, `schedules`, `validation`, `callbacks`) -> `saved` -> `comparison` -> `report`
(`side_by_side`); `prepared` puts all up to `saved` together, `training` all of it.
"""

from typing import TYPE_CHECKING

from grounded_seg.train.settings import TrainSettings

if TYPE_CHECKING:
    from grounded_seg.train.measure.split import evaluate
    from grounded_seg.train.training import train

__all__ = ["TrainSettings", "evaluate", "train"]


def __getattr__(name: str) -> object:
    """Import what needs torch, which takes seconds, only when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from grounded_seg.train import training
    from grounded_seg.train.measure import split as measuring

    return getattr(measuring if name == "evaluate" else training, name)
