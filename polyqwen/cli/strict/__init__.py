"""Refuses what cannot run, in one line, before anything heavy is imported."""
