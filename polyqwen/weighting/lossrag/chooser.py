"""One decision: the policy learns from it, then it is taken."""

from typing import NamedTuple

from torch import Tensor

from polyqwen.weighting.lossrag.objective import agreement_of_mix, objective
from polyqwen.weighting.lossrag.policy import Policy
from polyqwen.weighting.lossrag.retrieval import retrieve


class Offer(NamedTuple):
    """The M losses that are present and on, and the situation.

    Attributes:
        losses: (M,) int64, which of the library they are.
        features: (M, F) φ.
        context: (C,).
        agreement: (M,) r, smoothed.
        similarity: (M, M) C, smoothed.
        prior: (M,) > 0, the static weights.
        anchor: place of the anchor among them, None if it is absent.
    """

    losses: Tensor
    features: Tensor
    context: Tensor
    agreement: Tensor
    similarity: Tensor
    prior: Tensor
    anchor: int | None


class Choice(NamedTuple):
    """What was chosen.

    Attributes:
        share: (M,), sums to 1; 0 for losses not taken.
        scores: (M,).
        expected: J of the shares.
    """

    share: Tensor
    scores: Tensor
    expected: Tensor


class Chooser(NamedTuple):
    """Chooses by a policy.

    Attributes:
        policy: scores losses.
        top_k: losses taken, None: all.
        floor: least share times the number of losses taken.
        entropy: strength of the entropy in the objective.
        prior: strength of the divergence from the prior.
        frozen: whether the policy stays as it is.
    """

    policy: Policy
    top_k: int | None
    floor: float
    entropy: float
    prior: float
    frozen: bool

    def choose(self, offer: Offer) -> Choice:
        """The shares; before that the policy moves, unless it is frozen."""
        asked = offer.features, offer.context, offer.losses
        if not self.frozen:
            self.policy.ascend(*asked, lambda scores: self.value(scores, offer))
        scores = self.policy.scores(*asked)
        share = retrieve(scores, offer.anchor, self.top_k, self.floor)
        return Choice(share, scores, agreement_of_mix(share, offer.agreement, offer.similarity))

    def value(self, scores: Tensor, offer: Offer) -> Tensor:
        """What the policy climbs: of all losses on offer, so that those not taken can rise too."""
        return objective(
            retrieve(scores, None, None, self.floor),
            offer.agreement,
            offer.similarity,
            offer.prior / offer.prior.sum(),
            self.entropy,
            self.prior,
        )
