"""Claims put to the test: the recipe with something against the recipe without it."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from polyqwen.metrics.paired import Difference, Estimate, estimate, holm, paired_difference
from polyqwen.report.comparison.board import Variants, by_seed
from polyqwen.runs.run_folder import RunFolder
from polyqwen.runs.scores import SCORE

BELIEVED = 0.05  # adjusted p below which a difference is more than chance


class Claim(NamedTuple):
    """A statement that two variants can tell of.

    Attributes:
        text: the statement.
        treated: variant that has what it is about (``with`` in a study's file).
        control: variant that lacks it; empty compares with 0 (``without``).
        metric: see `value_of`.
        control_metric: the control's, if it is another one; empty takes the same.
    """

    text: str
    treated: str
    control: str = ""
    metric: str = SCORE
    control_metric: str = ""


class Tested(NamedTuple):
    """A claim with what the runs say; `p` is adjusted for all claims of the study."""

    name: str
    claim: Claim
    treated: Estimate
    control: Estimate
    difference: Difference
    p: float

    @property
    def verdict(self) -> str:
        """In words; what two seeds cannot tell stays open."""
        gain = self.difference.mean
        if math.isnan(gain):
            return "not measured"
        side = "for" if gain > 0 else "against" if gain < 0 else "neither"
        if math.isnan(self.p):
            return f"{side}, one seed" if side != "neither" else "no difference, one seed"
        if self.p < BELIEVED:
            return "holds" if gain > 0 else "contradicted"
        return f"open ({side})" if side != "neither" else "no difference"


def read_claim(name: str, fields: Mapping[str, str | None]) -> Claim:
    """A claim as a study's file has it.

    Raises:
        ValueError: a key is unknown, or ``with`` or ``text`` is missing.
    """
    known = ("text", "with", "without", "metric", "metric_without")
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(f"study.claims.{name}: unknown keys {unknown}; use {', '.join(known)}")
    for key in ("text", "with"):
        if not fields.get(key):
            raise ValueError(f"study.claims.{name}.{key} is missing")
    return Claim(
        text=str(fields["text"]),
        treated=str(fields["with"]),
        control=str(fields.get("without") or ""),
        metric=str(fields.get("metric") or SCORE),
        control_metric=str(fields.get("metric_without") or ""),
    )


def put_to_the_test(
    claims: Mapping[str, Claim], variants: Variants, tasks: list[str]
) -> list[Tested]:
    """Paired over seeds; Holm over the claims."""
    found = [_tested(name, claim, variants, tasks) for name, claim in claims.items()]
    adjusted = holm([tested.difference.p for tested in found])
    return [tested._replace(p=p) for tested, p in zip(found, adjusted, strict=True)]


def _tested(name: str, claim: Claim, variants: Variants, tasks: list[str]) -> Tested:
    def values(variant: str, metric: str) -> dict[int, float]:
        runs: Sequence[RunFolder] = variants.get(variant, ())
        return by_seed(runs, lambda run: run.value_of(metric, tasks))

    treated = values(claim.treated, claim.metric)
    control = values(claim.control, claim.control_metric or claim.metric)
    against = control if claim.control else None
    difference = paired_difference(treated, against)
    ours, theirs = (estimate(list(v.values())) for v in (treated, control))
    return Tested(name, claim, ours, theirs, difference, math.nan)
