"""Segment Anything: configuration, weights, image encoder and mask decoder."""
