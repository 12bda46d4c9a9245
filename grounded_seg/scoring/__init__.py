"""Metrics on arrays: matching, average precision, presence, calibration, kinds of error, plots."""
