"""Callbacks of a training: when something happens and to what value, not how it is computed."""
