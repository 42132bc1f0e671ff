"""Random numbers that all ranks and a resumed run draw alike."""

import torch


def step_generator(seed: int, step: int) -> torch.Generator:
    """A generator that depends on the seed and the step alone, so that it needs no state."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
