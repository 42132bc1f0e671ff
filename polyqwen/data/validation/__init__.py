"""Looks through a whole data set before a run does, and counts instead of stopping."""
