"""Configuration: composed by Hydra, checked from source text; imports nothing heavy."""
