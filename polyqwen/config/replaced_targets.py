"""A ``_target_`` given on the command line begins its node anew."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from polyqwen.config.moved_targets import current_target
from polyqwen.config.signatures import Signature, signature_of

TARGET = "_target_"


class Replacement(NamedTuple):
    """A node with the target that the command line gives it, and the keys it gives beside it."""

    path: str
    target: str
    named: frozenset[str]


def replace_targets(cfg: DictConfig, overrides: Sequence[Override]) -> None:
    """Clears nodes whose ``_target_`` the command line changes, before it is applied.

    ``losses.text_pair._target_=….CoSENTLoss`` would else leave the keys that the files have for the
    loss of before, and CoSENT takes no ``score_weight``. A cleared node keeps what the new target
    cannot do without (``weighting.static``, a head's ``classes``), what the command line names, and
    Hydra's own keys (``_partial_``); anything else has the new target's default.

    Args:
        cfg: composed of the files, changed in place.
        overrides: of keys, parsed.
    """
    for path, target, named in replacements(overrides):
        node = OmegaConf.select(cfg, path, throw_on_resolution_failure=False)
        if not isinstance(node, DictConfig) or TARGET not in node:
            continue
        before = OmegaConf.to_container(node, resolve=False)
        assert isinstance(before, dict)
        signature = _signature(target)
        if signature is None or current_target(str(before[TARGET])) == current_target(target):
            continue
        with open_dict(node):
            for key in before:
                if not (key in named or str(key).startswith("_") or _required(signature, str(key))):
                    del node[key]
            for key in named - before.keys():
                if key in signature.parameters:
                    node[key] = None  # to be given a value


def replacements(overrides: Sequence[Override]) -> Iterator[Replacement]:
    """Targets given as ``PATH._target_=TARGET``, or within ``PATH={_target_: TARGET, …}``."""
    given = {
        str(override.key_or_group): None if override.is_delete() else override.value()
        for override in overrides
        if not override.is_sweep_override()
    }
    for key, value in given.items():
        path, _, last = key.rpartition(".")
        inner: dict[Any, Any] = value if isinstance(value, dict) else {}
        if path and last == TARGET and isinstance(value, str):
            target = value
        elif isinstance(inner.get(TARGET), str):
            path, target = key, inner[TARGET]
        else:
            continue
        below = [k.removeprefix(f"{path}.") for k in given if k.startswith(f"{path}.")]
        named = {*map(str, inner), *(name.partition(".")[0] for name in below)}
        yield Replacement(path, target, frozenset(named - {TARGET}))


def _signature(target: str) -> Signature | None:
    """None for a target that cannot be read; it is refused later, in words of its own."""
    try:
        return signature_of(target)
    except ValueError:
        return None


def _required(signature: Signature, key: str) -> bool:
    return key in signature.parameters and signature.parameters[key].required
