"""Stage 2: each box becomes a mask, through a model of the Segment Anything family.

One batch, straight forward: `segmenter` -> `resize` -> the network that `load` chose (`sam/` or `transformers_sam`) ->
`upsampling` -> `quality`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grounded_seg.segment.segmenter import SamSegmenter, load_segmenter

__all__ = ["SamSegmenter", "load_segmenter"]


def __getattr__(name: str) -> object:
    """Import what needs torch, which takes seconds, only when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from grounded_seg.segment import segmenter

    return getattr(segmenter, name)
