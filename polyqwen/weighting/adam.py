"""How strategies with learned scalars take a step."""

import torch
from torch import Tensor, nn


class AdamRule(nn.Module):
    """Adam on a vector of scalars, one per task, whose gradients come from a formula.

    ``m ← b1 m + (1 − b1) g``, ``v ← b2 v + (1 − b2) g²``, ``x ← x − lr · m̂ / (√v̂ + ε)`` with
    the usual corrections (Kingma and Ba, 2015, arXiv 1412.6980). A task that takes no part in a
    step keeps its moments and its own count of steps. State is in buffers, so it is saved with the
    strategy and never seen by the model's optimizer.

    Args:
        tasks: length of the vector.
        learning_rate: > 0.
        decay: of the scalars towards 0 as an L2 penalty in the gradient, >= 0.
        epsilon: ε, > 0; far below any gradient it makes the first step exactly ``learning_rate``.
    """

    mean: Tensor  # (T,)
    square: Tensor  # (T,)
    steps: Tensor  # (T,)

    def __init__(
        self, tasks: int, learning_rate: float, decay: float = 0.0, epsilon: float = 1e-8
    ) -> None:
        super().__init__()
        if not learning_rate > 0.0:
            raise ValueError(f"weighting.learning_rate must be > 0, got {learning_rate}; try 0.025")
        if decay < 0.0:
            raise ValueError(f"weighting.decay must be >= 0, got {decay}")
        self.learning_rate, self.decay, self.epsilon = learning_rate, decay, epsilon
        for name in ("mean", "square", "steps"):
            self.register_buffer(name, torch.zeros(tasks, dtype=torch.float64))

    def step(self, values: Tensor, gradient: Tensor, active: Tensor) -> Tensor:
        """The scalars after one step, (T,) on the CPU; only ``active`` ones move."""
        mean, square, steps = (b.cpu() for b in (self.mean, self.square, self.steps))
        gradient = gradient + self.decay * values
        mean = torch.where(active, 0.9 * mean + 0.1 * gradient, mean)
        square = torch.where(active, 0.999 * square + 0.001 * gradient**2, square)
        steps = steps + active
        self.mean.copy_(mean)
        self.square.copy_(square)
        self.steps.copy_(steps)
        count = steps.clamp_min(1.0)
        direction = mean / (1 - 0.9**count) / ((square / (1 - 0.999**count)).sqrt() + self.epsilon)
        return torch.where(active, values - self.learning_rate * direction, values)
