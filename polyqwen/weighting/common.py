"""Seeds that follow from the step, so that they need no state."""

import torch


def step_seed(seed: int, step: int) -> int:
    """A seed that depends on the run's seed and the step alone, so that it needs no state."""
    return (seed * 1_000_003 + step) % 2**63


def step_generator(seed: int, step: int) -> torch.Generator:
    """A generator with `step_seed`."""
    return torch.Generator().manual_seed(step_seed(seed, step))
