"""Labels for other tools, from a run or a COCO file; one module per format."""
