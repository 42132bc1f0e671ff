"""What strategies share that are steered by the gradient of a few trusted rows."""

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientArguments, cosines, with_gradient
from polyqwen.weighting.gram import Gram
from polyqwen.weighting.normalized import NormalizedWeighting
from polyqwen.weighting.statistics import Decision, Statistics


class TrustedArguments(GradientArguments, total=False):
    """The arguments of `TrustedGradientWeighting`, for constructors that hand them on."""

    smoothing: float


class TrustedGradientWeighting(NormalizedWeighting):
    """Shares of the step by what each task's gradient does for rows that are never trained on.

    To first order a step along g_t changes the trusted rows' loss by ``−η g_t · g_v``, so what
    counts is ``r_t = cos(g_t, g_v)``, beside the tasks' own cosines C. Both are smoothed over
    updates. A strategy turns them into shares p on the simplex, and the weights are
    ``λ_t ∝ p_t / n_t``, n_t the smoothed gradient norm: p is a share of the *step*, whatever the
    losses' scales. Tasks that are absent or without a gradient keep their weight.

    Args:
        static: task -> weight until the first update, > 0; the order of tasks.
        gram: where gradients are taken.
        smoothing: of r, C and n from update to update, in [0, 1); 0 takes the last ones only.
        normalize: "sum_to_T" or "none", where ``Σ λ_t n_t`` is the mean gradient norm.
        eval_steps: optimizer steps between updates, >= 1; each looks at the trusted rows.
    """

    in_step = True
    uses_static = False
    needs_trusted = True

    agreement: Tensor  # (T,) r, NaN before a task was seen
    similarity: Tensor  # (T, T) C, NaN likewise
    norms: Tensor  # (T,) n, NaN likewise

    def __init__(
        self,
        static: Mapping[str, float],
        gram: Gram,
        smoothing: float = 0.9,
        normalize: str = "sum_to_T",
        eval_steps: int = 2,
    ) -> None:
        super().__init__(static, normalize, eval_steps)
        self.check(0.0 <= smoothing < 1.0, "smoothing", smoothing, "in [0, 1), e.g. 0.9")
        self.gram, self.smoothing = gram, smoothing
        blank = torch.full_like(self.base, torch.nan)
        self.register_buffer("agreement", blank.clone())
        self.register_buffer("similarity", blank.expand(len(blank), -1).clone())
        self.register_buffer("norms", blank.clone())

    @abstractmethod
    def share(self, agreement: Tensor, similarity: Tensor, tasks: Tensor) -> Tensor:
        """Shares of the tasks that take part, (M,), >= 0; all zero: none of them helps.

        Args:
            agreement: (M,) smoothed r.
            similarity: (M, M) smoothed C.
            tasks: (M,) int64, which tasks these are.
        """

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        products = statistics.products
        if products is None:
            return Decision(torch.where(statistics.active, 1.0, old), "fewer than two tasks")
        used = with_gradient(products.tasks, statistics.active)
        if products.trusted is None or not products.trusted_norm or not used.any():
            return Decision(old, "no gradient to compare with")
        along = products.trusted / products.trusted_norm
        return self._weigh(statistics, old, products.tasks, along, used)

    def _weigh(
        self, statistics: Statistics, old: Tensor, gram: Tensor, along: Tensor, used: Tensor
    ) -> Decision:
        """The decision where there are gradients to compare.

        Args:
            statistics: of the update.
            old: (T,) base weights.
            gram: (T, T) inner products of the tasks' gradients.
            along: (T,) lengths of the tasks' gradients along the trusted rows'.
            used: (T,) tasks that take part.
        """
        self._remember(gram, along, used)
        tasks = used.nonzero().flatten()
        agreement, norms = self.agreement.cpu(), self.norms.cpu()
        share = self.share(agreement[tasks], self.similarity.cpu()[tasks][:, tasks], tasks)
        shares = torch.full_like(old, torch.nan).index_copy_(0, tasks, share)
        causes = {"agreement": torch.where(used, agreement, torch.nan), "share": shares}
        if not float(share.sum()) > 0.0:
            return Decision(old, "no task helps the trusted rows", causes=causes)
        weights = (shares / shares[used].sum() * norms[used].mean() / norms).nan_to_num(0.0)
        new = self.scaled(weights, used, old)
        return Decision(new, type(self).__name__, causes=causes)

    def _remember(self, gram: Tensor, along: Tensor, used: Tensor) -> None:
        norms, unit = cosines(gram)
        pairs = used[:, None] & used[None, :]
        _smooth(self.norms, norms, used, self.smoothing)
        _smooth(self.agreement, along / torch.where(used, norms, 1.0), used, self.smoothing)
        _smooth(self.similarity, unit, pairs, self.smoothing)


def _smooth(buffer: Tensor, new: Tensor, known: Tensor, smoothing: float) -> None:
    """Moves a running mean where there is news; what was never seen starts with the first news."""
    old = buffer.cpu()
    mixed = torch.where(torch.isnan(old), new, smoothing * old + (1.0 - smoothing) * new)
    buffer.copy_(torch.where(known, mixed, old))
