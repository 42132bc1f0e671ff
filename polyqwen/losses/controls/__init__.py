"""Losses that mislead on purpose: controls for studies and tests, never for training a model.

A strategy that chooses or weighs losses must turn these down. Each is a proper loss of its wrong
aim: bounded, differentiable, the same on all ranks.
"""
