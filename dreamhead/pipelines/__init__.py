"""Inference on one device: arrays in, arrays out; no Ray, no file paths."""
