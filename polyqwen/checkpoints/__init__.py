"""Checkpoint files: whole or not there, known by their hash, found again."""
