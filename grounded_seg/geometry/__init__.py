"""Boxes, masks, polygons and outlines: pure functions on arrays."""
