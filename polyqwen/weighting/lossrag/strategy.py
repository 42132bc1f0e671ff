"""LossRAG: candidate losses are retrieved and weighed by what they do and by the situation."""

from collections.abc import Collection, Mapping
from typing import Unpack

import torch
from torch import Tensor, nn

from polyqwen.weighting.by_gradient.base import cosines
from polyqwen.weighting.by_validation.base import TrustedArguments, TrustedGradientWeighting
from polyqwen.weighting.feature_sketch import FeatureSketch
from polyqwen.weighting.lossrag.activity import Activity
from polyqwen.weighting.lossrag.arguments import anchor_of, check_arguments, families_of
from polyqwen.weighting.lossrag.chooser import Chooser, Offer
from polyqwen.weighting.lossrag.context import CONTEXTS, SKETCH, Context
from polyqwen.weighting.lossrag.descriptors import AVERAGED, Descriptors
from polyqwen.weighting.lossrag.measurements import Measurement, RealisedCredit, log_level
from polyqwen.weighting.lossrag.policy import Policy
from polyqwen.weighting.lossrag.transfer import load
from polyqwen.weighting.statistics import Decision, Statistics

SHOWN = ("conflict", "slope", "left")  # descriptors to log, beside those with a name of their own


class Library(nn.Module):
    """The candidate losses, described; nothing here chooses.

    Args:
        descriptors: φ of each.
        situation: c.
        activity: who takes part.
        credit: what shares did in hindsight.
        described: whether φ is handed out; zeros otherwise.
    """

    def __init__(
        self,
        descriptors: Descriptors,
        situation: Context,
        activity: Activity,
        credit: RealisedCredit,
        described: bool = True,
    ) -> None:
        super().__init__()
        self.descriptors, self.situation = descriptors, situation
        self.activity, self.credit, self.described = activity, credit, described

    def observe(self, seen: Measurement, statistics: Statistics, learn: bool) -> dict[str, str]:
        """Takes one update's look; returns loss -> what was switched, and why.

        Args:
            seen: what was measured.
            statistics: for rows and the batch's features.
            learn: whether z-scores' means and variances follow.
        """
        self.credit.observe(seen.share, seen.trusted)
        if seen.looked.any():
            realised = self.credit.correlation
            self.descriptors.observe(seen, self.activity.anchor, realised, learn)
            self.situation.observe(seen, statistics.rows, statistics.features, learn)
        return self.activity.judge(seen.agreement)

    def features(self) -> Tensor:
        """φ, (M, F)."""
        features = self.descriptors.features(self.credit.correlation)
        return features if self.described else torch.zeros_like(features)


class LossRAG(TrustedGradientWeighting):
    """A learned choice among candidate losses; what a task is elsewhere is a loss here.

    At each update every loss gets an embedding e from what it does (`Descriptors`), the situation
    gives a query q (`Context`, `Policy`), and ``p = floor(softmax(κ e · q on the best k))``
    (`retrieve`). Weights are ``λ_i ∝ p_i / n_i``, n the smoothed gradient norm. Before that the
    policy takes a step up ``J(p) + a H(p) − b KL(p ‖ static)`` (`Chooser.value`), p over *all*
    losses that are on, and losses that harm the trusted rows are switched off (`Activity`); these
    count as measured at their tests only, although a Gram matrix holds them at every update. An own
    design, experimental; prior art and what it is worth: docs/lossrag.md.

    Args:
        total_steps: of the run, for the context's progress.
        anchor: the loss that is always on; None: that of the largest static weight.
        aim: trusted rows are to improve in the "mean" of the tasks' own losses or in the "anchor".
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
        shared: arguments of `TrustedGradientWeighting`; the static weights are also the prior.
    """

    uses_static = True  # as the prior

    applied: Tensor  # (M,) shares of the last update, 0 for losses that took no part
    scores: Tensor  # (M,) at the last update
    expected: Tensor  # () J of the applied shares

    def __init__(
        self,
        *,
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
        learning_rate: float = 0.002,
        entropy: float = 0.05,
        prior: float = 0.01,
        patience: int | None = 10,
        retest_every: int = 20,
        credit_every: int = 10,
        policy_from: str | None = None,
        frozen: bool = False,
        seed: int = 0,
        **shared: Unpack[TrustedArguments],
    ) -> None:
        check_arguments(locals())
        super().__init__(**shared)
        static = shared["static"]
        self.anchor = self.tasks.index(anchor_of(static, anchor))
        self.total_steps, self.aim = total_steps, aim
        self.library = Library(
            Descriptors(families_of(self.tasks, families)),
            Context(self.tasks, context, ids, seed),
            Activity(self.tasks, self.anchor, patience, retest_every),
            RealisedCredit(len(self.tasks), credit_every),
            descriptors,
        )
        self.policy = Policy(self.tasks, learning_rate, scale, ids, id_decay, seed)
        self.chooser = Chooser(self.policy, top_k, floor, entropy, prior, frozen)
        if context in ("features", "both"):
            self.sketch = FeatureSketch(SKETCH, seed)
        for name in ("applied", "scores"):
            self.register_buffer(name, torch.zeros_like(self.base))
        self.register_buffer("expected", torch.zeros((), dtype=torch.float64))
        self.register_buffer("context_kind", torch.tensor(CONTEXTS.index(context)))
        if policy_from is not None:
            self.load_state_dict(load(policy_from, context), strict=False)

    def _judges(self, candidates: Collection[str]) -> Tensor:
        """With ``aim: anchor`` the anchor alone judges the trusted rows."""
        if self.aim == "anchor":
            return torch.arange(len(self.tasks)) == self.anchor
        return super()._judges(candidates)

    def share(self, agreement: Tensor, similarity: Tensor, tasks: Tensor) -> Tensor:
        """(M,); also moves the policy, unless it is frozen."""
        on = self.library.activity.on.cpu()[tasks]
        if not on.any():  # the anchor is absent and nobody else is on: better all than none
            on = torch.ones_like(on)
        places = on.nonzero().flatten()
        losses = tasks[places]
        anchor = (losses == self.anchor).nonzero().flatten().tolist()
        offer = Offer(
            losses=losses,
            features=self.library.features()[losses],
            context=self.library.situation.values.cpu(),
            agreement=agreement[places],
            similarity=similarity[places][:, places],
            prior=self.static[losses],
            anchor=anchor[0] if anchor else None,
        )
        choice = self.chooser.choose(offer)
        blank = torch.zeros_like(self.static)
        self.scores.copy_(blank.index_copy(0, losses, choice.scores))
        self.applied.copy_(blank.index_copy(0, losses, choice.share))
        self.expected.copy_(choice.expected)
        return self.applied.cpu()[tasks]

    def _weigh(
        self, statistics: Statistics, old: Tensor, gram: Tensor, along: Tensor, used: Tensor
    ) -> Decision:
        """Looks at the losses before their shares are set, and tells what was seen."""
        norms, unit = cosines(gram)
        seen = Measurement(
            looked=self.library.activity.look(used),
            norms=norms,
            cosines=unit,
            agreement=along / norms,
            loss=self._excess(statistics.loss),
            trusted=log_level(statistics.trusted, self.lower_bounds, self.judges),
            share=self.applied.cpu(),
            progress=min(max(statistics.step / self.total_steps, 0.0), 1.0),
        )
        notes = self.library.observe(seen, statistics, learn=not self.chooser.frozen)
        decision = super()._weigh(statistics, old, gram, along, used)
        causes = decision.causes | self._diagnostics(used)
        return decision._replace(reason=self._reason(used), notes=notes, causes=causes)

    def _remember(self, gram: Tensor, along: Tensor, used: Tensor) -> None:
        """Only what was looked at; a loss that is on again begins with this look."""
        back = self.library.activity.restored
        for buffer in (self.agreement, self.norms, self.similarity, self.similarity.T):
            buffer[back.to(buffer.device)] = torch.nan
        super()._remember(gram, along, used & self.library.activity.looked.cpu())

    def _diagnostics(self, used: Tensor) -> dict[str, Tensor]:
        """Name -> (M,) for the log, NaN where a loss has none.

        ``score``, ``active`` (1 on, 0 off), ``evidence`` with ``evidence_error`` (mean r since the
        loss was last switched, and its standard error), ``gradient_norm``, ``cosine`` (to the
        anchor), ``conflict``, ``slope``, ``left``, ``realised``.
        """
        activity = self.library.activity
        evidence, error = activity.estimate()
        means = self.library.descriptors.averages.mean
        taking_part = used & (self.applied.cpu() > 0.0)
        return {
            "score": torch.where(taking_part, self.scores.cpu(), torch.nan),
            "active": torch.where(used, activity.on.cpu().double(), torch.nan),
            "evidence": evidence,
            "evidence_error": torch.where(torch.isfinite(error), error, torch.nan),
            "gradient_norm": torch.where(used, self.norms.cpu(), torch.nan),
            "cosine": means[:, AVERAGED.index("cos_anchor")],
            **{name: means[:, AVERAGED.index(name)] for name in SHOWN},
            "realised": self.library.credit.correlation,
        }

    def _reason(self, used: Tensor) -> str:
        """Which losses the step is made of, and how well that agrees with the trusted rows."""
        share = self.applied.cpu()
        order = share.argsort(descending=True, stable=True).tolist()
        taken = ", ".join(f"{self.tasks[i]} {share[i]:.0%}" for i in order if share[i] > 0.0)
        off = int((used & ~self.library.activity.on.cpu()).sum())
        frozen = ", policy frozen" if self.chooser.frozen else ""
        return f"LossRAG: {taken}; {off} off; J {float(self.expected):+.3f}{frozen}"
