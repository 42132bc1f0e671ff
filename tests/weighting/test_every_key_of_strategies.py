"""Every setting of every strategy moves the weights that it draws."""

import copy
import re
from typing import Any

import pytest
from hydra.utils import get_class, instantiate

from polyqwen.config.identity import flat_settings
from polyqwen.weighting.base import Weighting
from tests.config.observed_parts import drawn_weights
from tests.weighting.test_weighting_contract import STRATEGIES, node_of

pytestmark = pytest.mark.slow

OTHER: dict[str, Any] = {  # "strategy.key" -> another legal value, if not one more or half of it
    r"\w+\.normalize": ("sum_to_T", "none"),
    r"\w+\.seed": 5,
    r"calibrated\.loss_floor": 5.0,
    r"gate\.mode": ("cosine", "sign"),
    r"gradnorm\.floor": 0.9,
    r"gradnorm\.optimizer": ("adam", "sgd"),
    r"lossrag\.anchor": "b",
    r"lossrag\.aim": ("mean", "anchor"),
    r"lossrag\.families": {"a": "margin", "b": "regulariser"},
    r"lossrag\.context": ("both", "state"),
    r"lossrag\.top_k": 2,
    r"lossrag\.patience": 1,
    r"stw\w*\.beta\.until_step": 9,
    r"stw\w*\.beta\.mode": ("loss", "alpha"),
    r"stw\w*\.beta\.(foundation|balance)": 1.1,
    r"stw\w*\.alpha\.\w": 3.0,
    r"stw\w*\.alpha_range": 1.01,
    r"stw\w*\.beta_bounds": [0.94, 1.06],
    r"stw\w*\.bounds": [0.9, 1.3],
    r"stw\w*\.rate_limit": 1.05,
    r"stw\w*\.loss_floor": 1.5,
    r"stw\w*\.collect": ("loss", "relative"),
    r"stw\w*\.fallback": ("static", "calibrated"),
    r"stw\w*\.min_tasks": 5,
    r"stw\w*\.min_samples": 1000,
    r"stw\w*\.interval": {"shortest": 4, "longest": 8, "move": 0.1, "settle": 0.02},
    r"torchjd\.name": "PCGradWeighting",
    r"torchjd\.arguments": {"max_iters": 1},
    r"uncertainty\.variant": ("kendall", "positive"),
}
# read beside another value of another key, or not by the strategy's weights
BESIDE = {
    r"stw\w*\.(beta\.tasks|calibration_steps)": "refused by the configuration check otherwise",
    r"lossrag\.(retest_every|patience)": "tests/weighting/test_lossrag.py: needs a harmful loss",
    r"lossrag\.(policy_from|frozen)": "tests/weighting/test_lossrag_transfer.py: needs a file",
    r"torchjd\.seed": "of aggregators that draw at random",
    r"aligned_mtl\.scale": "refused by the configuration check under normalize=sum_to_T",
    r"(equal|static|calibrated)\.eval_steps": "how often weights are logged",
}
STEPS, ALONE = 40, 4


def nodes(name: str) -> dict[str, Any]:
    """The strategy's node for three tasks."""
    node = copy.deepcopy(node_of(name)) | {"static": {"a": 1.0, "b": 1.0, "c": 1.2}}
    node["eval_steps"] = min(node.get("eval_steps", 2), 2)
    if "calibration_steps" in node:
        node |= {"calibration_steps": 8, "rate_limit": 9.0}  # so that the fallback is reached
    if isinstance(node.get("alpha"), dict):
        node["alpha"] = {"a": 0.27, "b": 1.0, "c": 1.0}
        node["beta"] |= {"until_step": 12, "tasks": ["a"]}
    return node


def weights(node: dict[str, Any]) -> list[list[float]]:
    strategy: Weighting = instantiate(node, _convert_="all")
    return drawn_weights(strategy, STEPS, ALONE)


def changed(node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    node = copy.deepcopy(node)
    inner, (*path, last) = node, key.split(".")
    for part in path:
        inner = inner[part]
    inner[last] = value
    return node


def other_value(key: str, value: Any) -> Any:
    for pattern, other in OTHER.items():
        if re.fullmatch(pattern, key):
            return next(o for o in other if o != value) if isinstance(other, tuple) else other
    if isinstance(value, bool):
        return not value
    assert isinstance(value, int | float), f"say in OTHER what else {key}={value!r} may be"
    return value + 1 if isinstance(value, int) else value / 2 or 0.5


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_setting_moves_the_weights(name: str) -> None:
    node, dead = nodes(name), []
    drawn = weights(node)
    for key, value in flat_settings(node).items():
        excused = any(re.fullmatch(pattern, f"{name}.{key}") for pattern in BESIDE)
        if excused or key.endswith("_target_"):
            continue
        if weights(changed(node, key, other_value(f"{name}.{key}", value))) == drawn:
            dead.append(key)
    if not get_class(node["_target_"]).uses_static:  # a static weight given is refused
        assert {"static.a", "static.b", "static.c"} <= set(dead)
        dead = [key for key in dead if not key.startswith("static.")]
    assert not dead, f"no effect: {', '.join(dead)}"
