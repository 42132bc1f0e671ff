"""Strategies whose weights can be scaled to sum to the number of tasks."""

from collections.abc import Mapping
from typing import Required, TypedDict

from polyqwen.weighting.base import Weighting


class NormalizedArguments(TypedDict, total=False):
    """The arguments of `NormalizedWeighting`, for constructors that hand them on."""

    static: Required[Mapping[str, float]]
    normalize: str
    eval_steps: int


class NormalizedWeighting(Weighting):
    """Base of strategies that keep the sum of their weights, so that the learning rate keeps its.

    Args:
        static: task -> weight to start from, > 0; the order of tasks.
        normalize: "sum_to_T" scales the weights of the tasks that take part to sum to their number;
            "none" is the strategy's own scale.
        eval_steps: optimizer steps between updates, >= 1.
    """

    def __init__(
        self, static: Mapping[str, float], normalize: str = "sum_to_T", eval_steps: int = 1
    ) -> None:
        super().__init__(static, eval_steps)
        self.check(
            normalize in ("sum_to_T", "none"), "normalize", normalize, "'sum_to_T' or 'none'"
        )
        self.normalize = normalize
