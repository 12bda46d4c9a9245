"""Stage 2, the segmenter: Segment Anything turns each box into a mask."""
