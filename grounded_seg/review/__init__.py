"""A page to look through a run and decide on each instance."""
