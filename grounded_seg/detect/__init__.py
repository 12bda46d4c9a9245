"""Stage 1: prompts become scored boxes through Florence-2.

One prompt, straight forward: `detector` -> `tasks` (the question) -> `model/florence` (`pixels`, `vocabulary`) ->
`answer/parse` (`pieces`, `grammar`, `tokens`) -> `answer/box_scores`. `model/load` and `model/adapters` load the
weights; `ask` asks one question of any task.
"""

from typing import TYPE_CHECKING

from grounded_seg.detect.answer.parse import parse_answer

if TYPE_CHECKING:
    from grounded_seg.detect.detector import AdaptedDetector, FlorenceDetector, load_detector

__all__ = ["AdaptedDetector", "FlorenceDetector", "load_detector", "parse_answer"]


def __getattr__(name: str) -> object:
    """Import what needs torch, which takes seconds, only when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from grounded_seg.detect import detector

    return getattr(detector, name)
