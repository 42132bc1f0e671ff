"""The norm of a step's gradients: measured once, and clipped by."""

import math
from collections.abc import Iterable

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


class GradientNorm:
    """One measurement per step for the guard against NaN, for clipping and for the log.

    Attributes:
        value: of the last optimizer step, before clipping; NaN without any gradient.
    """

    def __init__(self) -> None:
        self.value = 0.0
        self._norm: Tensor | None = None  # the same on the device, until clipping has used it

    def measure(self, parameters: Iterable[Parameter]) -> float:
        """The norm of all gradients: the step's one wait for the device.

        The host has to know it to skip a step.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        self._norm = norm = get_total_norm(gradients) if gradients else None
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.value = math.nan if whole is None else float(whole)
        return self.value

    def clip(self, parameters: Iterable[Parameter], limit: float | None) -> bool:
        """Clips to ``limit``, if there is one; False where nothing was measured in this step."""
        norm, self._norm = self._norm, None
        if norm is None:
            return False
        # below the limit the factor is 1: the host knows, so nothing has to be multiplied
        if limit and self.value + 1e-6 > limit:
            clip_grads_with_norm_(parameters, limit, norm)
        return True
