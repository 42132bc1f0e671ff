"""LossRAG: candidate losses are retrieved and weighed by what they do and by the situation."""

from collections.abc import Mapping

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import cosines, with_gradient
from polyqwen.weighting.by_validation.base import TrustedGradientWeighting
from polyqwen.weighting.features import FeatureSketch
from polyqwen.weighting.gram import Gram
from polyqwen.weighting.lossrag.activity import Activity
from polyqwen.weighting.lossrag.arguments import anchor_of, check_arguments, families_of
from polyqwen.weighting.lossrag.context import CONTEXTS, SKETCH, Context
from polyqwen.weighting.lossrag.credit import RealisedCredit
from polyqwen.weighting.lossrag.descriptors import Descriptors
from polyqwen.weighting.lossrag.explain import causes, reason
from polyqwen.weighting.lossrag.measurement import Measurement, log_level
from polyqwen.weighting.lossrag.objective import agreement_of_mix, objective
from polyqwen.weighting.lossrag.policy import Policy
from polyqwen.weighting.lossrag.retrieval import retrieve
from polyqwen.weighting.lossrag.transfer import load
from polyqwen.weighting.statistics import Decision, Statistics


class LossRAG(TrustedGradientWeighting):
    """A learned choice among candidate losses; what a task is elsewhere is a loss here.

    At each update every loss gets an embedding e from what it does (`Descriptors`), the situation
    gives a query q (`Context`, `Policy`), and ``p = floor(softmax(κ e · q on the best k))``
    (`retrieve`). Weights are ``λ_i ∝ p_i / n_i``, n the smoothed gradient norm. Before that the
    policy takes a step up ``J(p) + a H(p) − b KL(p ‖ static)`` (`objective`), p over *all* losses
    that are on, and losses that harm the trusted rows are switched off (`Activity`); these count
    as measured at their tests only, although a Gram matrix holds them at every update. An own
    design, experimental; prior art and what it is worth: docs/lossrag.md.

    Args:
        static: loss -> weight until the first update, > 0; also the prior.
        gram: as in `TrustedGradientWeighting`, like smoothing and normalize.
        total_steps: of the run, for the context's progress.
        anchor: the loss that is always on; None: that of the largest static weight.
        aim: trusted rows are to improve in the "mean" of the losses or in the "anchor"'s.
        families: loss -> one of `FAMILIES`, for losses that have one.
        descriptors: whether embeddings are made from what losses do.
        context: what the query is made from, "none", "state", "features" or "both".
        ids: whether each loss has a learned vector of its own; without, a policy is transferable.
        id_decay: as in `Policy`, like scale and learning_rate.
        top_k: losses taken, None: all.
        scale: see `Policy`.
        floor: least share, divided by the number of losses taken, in [0, 1).
        learning_rate: see `Policy`.
        entropy: a, >= 0.
        prior: b, >= 0.
        patience: as in `Activity`; None never switches a loss off.
        retest_every: see `Activity`.
        credit_every: updates in a window of `RealisedCredit`.
        policy_from: file of a policy to begin with, see `transfer`.
        frozen: whether that policy stays as it is.
        seed: of the policy's start and of the sketches; equal on all ranks.
        smoothing: see `TrustedGradientWeighting`.
        normalize: likewise.
        eval_steps: optimizer steps between updates of policy and weights, >= 1.
    """

    applied: Tensor  # (M,) shares of the last update, 0 for losses that took no part
    scores: Tensor  # (M,) at the last update
    expected: Tensor  # () J of the applied shares

    def __init__(
        self,
        static: Mapping[str, float],
        gram: Gram,
        total_steps: int,
        anchor: str | None = None,
        aim: str = "mean",
        families: Mapping[str, str] | None = None,
        descriptors: bool = True,
        context: str = "state",
        ids: bool = True,
        id_decay: float = 0.01,
        top_k: int | None = 6,
        scale: float = 4.0,
        floor: float = 0.02,
        learning_rate: float = 0.02,
        entropy: float = 0.05,
        prior: float = 0.01,
        patience: int | None = 10,
        retest_every: int = 20,
        credit_every: int = 10,
        policy_from: str | None = None,
        frozen: bool = False,
        seed: int = 0,
        smoothing: float = 0.9,
        normalize: str = "sum_to_T",
        eval_steps: int = 2,
    ) -> None:
        check_arguments(locals())
        super().__init__(static, gram, smoothing, normalize, eval_steps)
        self.anchor = self.tasks.index(anchor_of(static, anchor))
        self.total_steps, self.aim, self.use_descriptors = total_steps, aim, descriptors
        self.top_k, self.floor, self.frozen = top_k, floor, frozen
        self.entropy, self.prior = entropy, prior
        self.descriptors = Descriptors(families_of(self.tasks, families))
        self.situation = Context(self.tasks, context, ids, seed)
        self.policy = Policy(self.tasks, learning_rate, scale, ids, id_decay, seed)
        self.activity = Activity(self.tasks, self.anchor, patience, retest_every)
        self.credit = RealisedCredit(len(self.tasks), credit_every)
        if context in ("features", "both"):
            self.sketch = FeatureSketch(SKETCH, seed)
        for name in ("applied", "scores"):
            self.register_buffer(name, torch.zeros_like(self.base))
        self.register_buffer("expected", torch.zeros((), dtype=torch.float64))
        self.register_buffer("context_kind", torch.tensor(CONTEXTS.index(context)))
        if policy_from is not None:
            self.load_state_dict(load(policy_from, context), strict=False)

    def trusted_objective(self, losses: Tensor) -> Tensor:
        """The anchor's loss of the trusted rows, or the mean, (T,) with NaN."""
        own = losses[self.anchor]
        if self.aim == "mean" or bool(torch.isnan(own)):
            return super().trusted_objective(losses)
        return own

    def share(self, agreement: Tensor, similarity: Tensor, tasks: Tensor) -> Tensor:
        """(M,); also moves the policy, unless it is frozen."""
        on = self.activity.on.cpu()[tasks]
        if not on.any():  # the anchor is absent and nobody else is on: better all than none
            on = torch.ones_like(on)
        places = on.nonzero().flatten()
        losses = tasks[places]
        r, unit = agreement[places], similarity[places][:, places]
        features = self._features()[losses]
        context = self.situation.values.cpu()
        prior = self.static[losses] / self.static[losses].sum()

        def value(scores: Tensor) -> Tensor:  # over all losses: one outside the top k can rise
            p = retrieve(scores, None, None, self.floor)
            return objective(p, r, unit, prior, self.entropy, self.prior)

        if not self.frozen:
            self.policy.ascend(features, context, losses, value)
        scores = self.policy.scores(features, context, losses)
        anchor = (losses == self.anchor).nonzero().flatten().tolist()
        p = retrieve(scores, anchor[0] if anchor else None, self.top_k, self.floor)
        self.expected.copy_(agreement_of_mix(p, r, unit))
        self.scores.zero_().index_copy_(0, losses.to(self.scores.device), scores.to(self.scores))
        self.applied.zero_().index_copy_(0, losses.to(self.applied.device), p.to(self.applied))
        return self.applied.cpu()[tasks]

    def _next(self, statistics: Statistics, old: Tensor) -> Decision | None:
        gram, products = statistics.gram, statistics.trusted_products
        if gram is None or products is None or not statistics.trusted_norm:
            return super()._next(statistics, old)
        used = with_gradient(gram, statistics.active)
        notes = self._look(statistics, used) if used.any() else {}
        decision = super()._next(statistics, old)
        if decision is None or not used.any():
            return decision
        return decision._replace(
            reason=reason(self, used), notes=notes, causes=causes(self, used, decision.causes)
        )

    def _look(self, statistics: Statistics, used: Tensor) -> dict[str, str]:
        """Measures the losses whose turn it is, and judges them."""
        assert statistics.gram is not None and statistics.trusted_products is not None
        norms, unit = cosines(statistics.gram)
        agreement = statistics.trusted_products / statistics.trusted_norm / norms
        looked = self.activity.look(used)
        aim = self.anchor if self.aim == "anchor" else None
        trusted = log_level(statistics.trusted, self.lower_bounds, aim)
        seen = Measurement(looked, norms, unit, agreement, self._excess(statistics), trusted)
        self.credit.observe(self.applied, trusted)
        if looked.any():
            progress = min(max(statistics.step / self.total_steps, 0.0), 1.0)
            learn = not self.frozen
            self.descriptors.observe(seen, self.anchor, self.credit.correlation, learn)
            self.situation.observe(seen, statistics.rows, progress, statistics.features, learn)
        return self.activity.judge(agreement)

    def _remember(self, gram: Tensor, along: Tensor, used: Tensor) -> None:
        super()._remember(gram, along, used & self.activity.looked.cpu())

    def _features(self) -> Tensor:
        """φ, (M, F); 0 where descriptors are left out."""
        features = self.descriptors.features(self.credit.correlation)
        return features if self.use_descriptors else torch.zeros_like(features)
