"""One batch of images through both stages, and the result a caller gets."""
