"""Rows: files and columns in, examples of a task out; no tensors here."""
