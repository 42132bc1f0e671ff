"""Every strategy in a run: it trains, and a resumed run goes on as if it had never stopped."""

from pathlib import Path

import pytest
import torch

from tests.conftest import Configure
from tests.ranks import on_ranks
from tests.training.test_resume import Result, fit
from tests.weighting.test_weighting_contract import CONSTANT, STRATEGIES, overrides_of

ACCUMULATED = ["famo", "gls", "equal_norm", "gradnorm", "stw_learned", "nnls_match", "lossrag"]
TRUSTING = {"stw_learned", "validation", "gate", "exp_gradient", "nnls_match", "lossrag"}
CASES = [(name, 1) for name in STRATEGIES] + [(name, 2) for name in ACCUMULATED]


@pytest.mark.parametrize(("name", "accumulate"), CASES)
def test_trains_and_resumes(
    configure: Configure, tmp_path: Path, name: str, accumulate: int
) -> None:
    options = [*overrides_of(name), f"trainer.accumulate_grad_batches={accumulate}"]
    if name in TRUSTING:
        options.append("data.trusted_rows=4")
    through = fit(configure, tmp_path / "a", weighting=options)
    resumed = fit(configure, tmp_path / "b", weighting=options, ckpt=tmp_path / "a" / "5.ckpt")
    for key, value in through.state.items():
        assert torch.equal(resumed.state[key], value) or value.isnan().any(), key
    assert resumed.losses == {i: v for i, v in through.losses.items() if i >= 5 * accumulate}
    assert all(map(torch.equal, resumed.optimizer, through.optimizer))
    base = through.state["weighting.base"]
    assert torch.isfinite(base).all()
    assert (base.std() > 1e-6) or name in CONSTANT


@pytest.mark.parametrize("name", ["equal_norm", "gls"])
def test_two_ranks_weigh_like_one_process(configure: Configure, tmp_path: Path, name: str) -> None:
    """All tasks from the first step on, so that its gradients hang on weights of that very step."""
    mixed = [*overrides_of(name), "curriculum.switch_step=0"]

    def run(rank: int) -> Result:
        rows = "data.rows_per_task=3"
        return fit(configure, tmp_path / "two", "trainer.devices=2", rows, weighting=mixed)

    one = fit(configure, tmp_path / "one", "data.rows_per_task=6", weighting=mixed)
    two = on_ranks(2, run)
    ours, theirs = (torch.cat([g.flatten() for g in r.gradients]) for r in (two[0], one))
    assert theirs.norm() > 0.1
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    bases = [result.state["weighting.base"] for result in (*two, one)]
    assert torch.equal(bases[0], bases[1]) and bases[0].std() > 0.01
    assert torch.allclose(bases[0], bases[2], rtol=0.05)
