"""All that reads Florence-2 checkpoints in the layout of the first implementation."""
