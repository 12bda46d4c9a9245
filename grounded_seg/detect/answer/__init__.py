"""From generated tokens to labels, boxes, outlines and scores."""
