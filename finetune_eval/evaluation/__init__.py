"""Estimates with intervals, paired comparison, calibration and weak spots; no TensorFlow."""
