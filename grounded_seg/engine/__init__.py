"""Many images through the models: fixed batches, read ahead, in order, whatever executes them."""
