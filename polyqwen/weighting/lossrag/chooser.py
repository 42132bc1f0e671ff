"""One decision: objective, retrieval of losses, and the step of the policy before it."""

from typing import NamedTuple

import torch
from torch import Tensor

from polyqwen.weighting.lossrag.policy import Policy


def agreement_of_mix(p: Tensor, agreement: Tensor, similarity: Tensor) -> Tensor:
    """``J(p) = (p · r) / √(pᵀ C p)``: cosine of ``Σ p_i g_i / ‖g_i‖`` with the trusted gradient.

    The plain sum Σ p_i r_i is linear in p, so that its best p is a single loss; J rewards losses
    that complement each other.

    Args:
        p: (M,) shares.
        agreement: (M,) r.
        similarity: (M, M) C, cosines of the losses' gradients.
    """
    return (p @ agreement) / (p @ similarity @ p).clamp_min(1e-6).sqrt()


def retrieve(scores: Tensor, anchor: int | None, top_k: int | None, floor: float) -> Tensor:
    """Shares of the losses on offer: the best ``top_k`` and the anchor, softmax, floor.

    ``p = (1 − ε) softmax(s on A) + ε / |A|`` with A the losses taken; 0 elsewhere.

    Args:
        scores: (M,).
        anchor: place of the loss that is always taken; it stands for the last of the best if it is
            not among them. None if it is not on offer.
        top_k: losses taken, >= 1; None takes all.
        floor: ε, in [0, 1).

    Returns:
        (M,), sums to 1.
    """
    taken = torch.ones_like(scores, dtype=torch.bool)
    if top_k is not None and top_k < len(scores):
        ranked = scores.detach().clone()
        if anchor is not None:
            ranked[anchor] = torch.inf
        taken = torch.zeros_like(taken).index_fill_(0, ranked.topk(top_k).indices, True)
    p = torch.where(taken, scores, -torch.inf).softmax(0)
    return torch.where(taken, (1.0 - floor) * p + floor / int(taken.sum()), 0.0)


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
        """The policy's objective, ``J(p) + a H(p) − b KL(p ‖ π)``.

        p are the shares of all losses on offer, so that those not taken can rise too; H is the
        entropy, π the prior's shares, a ``entropy`` and b ``prior``.
        """
        p = retrieve(scores, None, None, self.floor)
        own, prior = torch.xlogy(p, p).sum(), offer.prior / offer.prior.sum()
        divergence = own - (p * prior.log()).sum()
        agreement = agreement_of_mix(p, offer.agreement, offer.similarity)
        return agreement - self.entropy * own - self.prior * divergence
