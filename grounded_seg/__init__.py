"""A sentence and an image go in; boxes, masks and COCO annotations come out.

Boxes, everywhere in this package: origin top-left, x right, y down, continuous pixel edges, half-open. A full image is
(0, 0, W, H) and a box's area is (x1 - x0) * (y1 - y0). Always xyxy; xywh exists only in `coco` and `export`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grounded_seg.engine.grounded_segmenter import GroundedSegmenter

__all__ = ["GroundedSegmenter", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the pipeline on first use, so that importing the package stays fast."""
    if name == "GroundedSegmenter":
        from grounded_seg.engine.grounded_segmenter import GroundedSegmenter

        return GroundedSegmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
