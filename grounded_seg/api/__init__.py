"""The functions of `grounded_seg` that do what the commands do."""
