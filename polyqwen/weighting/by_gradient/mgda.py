"""Multiple-gradient descent: the shortest direction in the convex hull."""

from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientWeighting
from polyqwen.weighting.by_gradient.solvers import shortest


class MGDA(GradientWeighting):
    """The shortest convex combination of the gradients, ``argmin ‖Σ w_t g_t‖, w ≥ 0, Σ w = 1``.

    Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", 2018,
    arXiv:1810.04650; Désidéri, 2012. Promises ``g_t · d ≥ ‖d‖²`` for every task, and d = 0 where no
    direction helps all. It favours short gradients: scale one down and it takes over.

    Deviations: the minimum is found exactly, not by 250 steps of Frank and Wolfe, and two tasks are
    not kept off the ends (the authors' code clips at .001 and .999); Σ w is already 1, so
    "sum_to_T" multiplies the paper's step by the number of tasks.

    Degenerate: opposite gradients, d = 0; equal ones share their weight; of parallel ones the
    shortest has it all.
    """

    def solve(self, gram: Tensor, tasks: Tensor, step: int) -> Tensor:
        """(M,) on the simplex."""
        return shortest(gram)
