"""The training loop: LoRA, loss, optimizer, checkpoints, curves."""
