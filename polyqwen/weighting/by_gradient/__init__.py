"""Strategies that read the inner products of the tasks' gradients."""
