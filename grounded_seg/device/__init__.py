"""Where the models run: choose the device and dtype, back off when memory is full."""
