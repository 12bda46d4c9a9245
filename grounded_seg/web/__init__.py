"""What the servers of `serve` and `view` share: who may ask, how much, and how they start and end."""
