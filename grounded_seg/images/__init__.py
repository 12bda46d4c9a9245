"""Images on disk: find them, read them as upright RGB, draw results on them."""

from grounded_seg.images.read import read_image

__all__ = ["read_image"]
