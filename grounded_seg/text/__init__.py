"""Text from outside, decoded in one way for every reader."""
