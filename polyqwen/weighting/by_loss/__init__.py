"""Strategies that read losses alone."""
