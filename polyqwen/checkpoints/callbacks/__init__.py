"""Callbacks that write, keep and read checkpoints."""
