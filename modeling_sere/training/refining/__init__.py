"""Gradient steps on frames or on the encoder, their checkpoints and trackers."""
