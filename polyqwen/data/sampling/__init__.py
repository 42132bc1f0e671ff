"""Sampling: optimizer step in, rows of every task out; curriculum, shares, exact order."""
