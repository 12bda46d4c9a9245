"""Data sets for training: read, check, ask, augment, tokenize."""
