"""Stage 1: prompts become scored boxes through Florence-2.

One prompt, straight forward: `prompts` -> `tasks` (the question) -> `florence` (`pixels`, `vocabulary`) -> `parse`
(`pieces`, `shapes`, `location_tokens`) -> `scores` -> `detector`. `checkpoint` and `adapters` load the weights,
`named_adapters` keeps several beside them.
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
