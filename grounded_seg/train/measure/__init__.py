"""Base against tuned: validation, report and pictures."""
