"""Finished runs beside each other: one row per variant, over seeds, against a baseline."""
