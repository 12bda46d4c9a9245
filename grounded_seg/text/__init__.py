"""Text from outside, decoded and parsed in one way for every reader, and made safe to print."""
