"""What the policy climbs."""

import torch
from torch import Tensor


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


def objective(
    p: Tensor,
    agreement: Tensor,
    similarity: Tensor,
    prior: Tensor,
    entropy: float,
    prior_strength: float,
) -> Tensor:
    """``J(p) + a H(p) − b KL(p ‖ π)``, H the entropy and π the static weights' shares.

    Args:
        p: (M,) > 0, sums to 1.
        agreement: (M,) r.
        similarity: (M, M) C.
        prior: (M,) π > 0, sums to 1.
        entropy: a, >= 0.
        prior_strength: b, >= 0.
    """
    own = torch.xlogy(p, p).sum()
    divergence = own - (p * prior.log()).sum()
    return agreement_of_mix(p, agreement, similarity) - entropy * own - prior_strength * divergence
