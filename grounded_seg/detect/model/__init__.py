"""Florence-2: load it with its adapters, prepare pixels, generate, save."""
