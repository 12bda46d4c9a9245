"""Stage 2: each box becomes a mask, through a model of the Segment Anything family.

One batch, straight forward: `segmenter` -> `resize` -> the network that `load` chose (`sam/` or `transformers_sam`) ->
`resize` back to the image.
"""

from grounded_seg.segment.segmenter import SamSegmenter, load_segmenter

__all__ = ["SamSegmenter", "load_segmenter"]
