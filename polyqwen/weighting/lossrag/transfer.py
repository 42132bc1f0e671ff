"""Takes a policy out of one run, or several, and into another."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyqwen.atomic_files import atomic_write
from polyqwen.weighting.lossrag.context import CONTEXTS, ENTRIES
from polyqwen.weighting.lossrag.descriptors import FEATURES

PARAMETERS = ("policy.projection", "policy.query", "policy.query_bias")
SCALES = tuple(
    f"{part}.scale.moments.{buffer}"
    for part in ("library.descriptors", "library.situation")
    for buffer in ("total", "weight", "square_weight")
)
State = dict[str, Tensor]


def extract(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The policy in a state dict of a model with `LossRAG`, or of a `LossRAG` itself.

    Args:
        state: parameter name -> value.
        source: what to call it in an error.

    Raises:
        ValueError: there is none, or it was learnt with ids, which belong to its own losses.
    """
    prefix = next((k.removesuffix(PARAMETERS[0]) for k in state if k.endswith(PARAMETERS[0])), None)
    if prefix is None:
        raise ValueError(f"{source} holds no policy; it must be of a run with weighting=lossrag")
    if bool(state[f"{prefix}policy.identity"].any()):
        raise ValueError(
            f"the policy of {source} leans on ids of its own losses; train with weighting.ids=false"
        )
    return {
        "features": list(FEATURES),
        "entries": list(ENTRIES),
        "context": CONTEXTS[int(state[f"{prefix}context_kind"])],
        "state": {name: state[prefix + name].cpu().clone() for name in (*PARAMETERS, *SCALES)},
    }


def average(policies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of policies, each turned to lie on the first as well as it can.

    Scores do not change when embeddings and query are rotated together, so policies from other
    starts are rotated first: ``R = U Vᵀ`` of the singular value decomposition of ``A₁ Aₖᵀ`` with
    ``A = [P W q0]`` (Schönemann, 1966). Scales are averaged as they are.

    Raises:
        ValueError: no policies, or of different contexts.
    """
    if not policies:
        raise ValueError("no policies to average; give at least one checkpoint")
    kinds = sorted({policy["context"] for policy in policies})
    if len(kinds) > 1:
        raise ValueError(f"policies learnt with context {' and '.join(kinds)} cannot be averaged")
    first = _matrix(policies[0]["state"])
    states = [_rotated(policy["state"], first) for policy in policies]
    mean = {name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]}
    return {**policies[0], "state": mean}


def from_checkpoints(paths: Sequence[Path], to: Path) -> None:
    """Averages the policies of checkpoints and writes the result.

    Raises:
        ValueError: as `extract` and `average`.
    """
    policies = []
    for path in paths:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        policies.append(extract(stored.get("state_dict", stored), str(path)))
    policy = average(policies)
    with atomic_write(to) as temporary:
        torch.save(policy, temporary)


def load(path: str, context: str) -> State:
    """A written policy's state.

    Args:
        path: as written by `from_checkpoints`.
        context: the kind it will be used with.

    Raises:
        ValueError: the file is missing, is no policy, or was learnt with other numbers.
    """
    if not Path(path).is_file():
        raise ValueError(
            f"weighting.policy_from: there is no file {path}; make one with "
            "python -m polyqwen policy CHECKPOINT … --to FILE"
        )
    policy = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(policy, dict) or "features" not in policy:
        raise ValueError(
            f"weighting.policy_from: {path} is no policy; make one with python -m polyqwen policy"
        )
    if policy["features"] != list(FEATURES) or policy["entries"] != list(ENTRIES):
        raise ValueError(
            f"weighting.policy_from: {path} was learnt with other features; learn anew"
        )
    if policy["context"] != context:
        raise ValueError(
            f"weighting.policy_from: {path} was learnt with weighting.context={policy['context']}, "
            f"got {context}"
        )
    state: State = policy["state"]
    return state


def _matrix(state: State) -> Tensor:
    """A, (16, F + C + 1)."""
    projection, query, bias = (state[name] for name in PARAMETERS)
    return torch.cat([projection, query, bias[:, None]], dim=1)


def _rotated(state: State, onto: Tensor) -> State:
    left, _, right = torch.linalg.svd(onto @ _matrix(state).T)
    return state | {name: left @ right @ state[name] for name in PARAMETERS}
