"""Metrics: embedded pairs of a split in, numbers out; they know no model."""
