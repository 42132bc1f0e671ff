"""Strategies that read trusted or validation rows."""
