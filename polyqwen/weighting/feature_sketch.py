"""A few numbers that say what a step's batch looks like to the encoder."""

import torch
import torch.distributed as dist
from torch import Tensor


class FeatureSketch:
    """Mean of pooled features through a fixed random projection, ``k = (1/N) Σ_n h_n R``.

    R (H, size) has entries N(0, 1/H) drawn from the seed, so that all ranks and a resumed run have
    the same; distances survive it (Johnson and Lindenstrauss, 1984). Sums and counts of all ranks
    are added before the division. Like a Gram matrix it is filled and emptied within one step, so
    none of it goes into a checkpoint.

    Args:
        size: numbers kept, >= 1.
        seed: of R.
    """

    def __init__(self, size: int = 8, seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"a sketch needs a size >= 1, got {size}")
        self.size, self.seed = size, seed
        self._random: Tensor | None = None  # (H, size)
        self._sums = torch.zeros(size + 1, dtype=torch.float64)  # Σ h R, then N

    def add(self, pooled: Tensor, finite: Tensor | None = None) -> None:
        """Adds one micro-batch's features.

        Args:
            pooled: (N, H); its graph is not used.
            finite: () bool, whether the micro-batch counts; None: it does.
        """
        total = pooled.detach().float().sum(0)  # (H,)
        if self._random is None or self._random.shape[0] != len(total):
            generator = torch.Generator().manual_seed(self.seed)
            drawn = torch.randn(len(total), self.size, generator=generator)
            self._random = drawn / len(total) ** 0.5
        self._random = self._random.to(total.device)
        own = torch.cat([total @ self._random, total.new_full((1,), float(len(pooled)))])
        if finite is not None:
            own = torch.where(finite, own, 0.0)
        self._sums = self._sums.to(total.device) + own.double()

    def all_reduce(self) -> None:
        """Adds up all ranks' sums; a collective."""
        dist.all_reduce(self._sums)

    def take(self) -> Tensor | None:
        """The mean since the last time, (size,) on the CPU; None without a finite one."""
        sums, self._sums = self._sums.cpu(), torch.zeros_like(self._sums)
        if not (float(sums[-1]) > 0.0 and bool(torch.isfinite(sums).all())):
            return None
        return sums[:-1] / sums[-1]
