"""Check a COCO file and repair what can be repaired."""
