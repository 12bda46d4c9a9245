"""COCO files: what we write, and how predictions are measured against ground truth."""
