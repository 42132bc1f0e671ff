"""Every strategy in a run: it trains, and a resumed run goes on as if it had never stopped."""

from pathlib import Path

import pytest
import torch

from tests.conftest import Configure
from tests.test_resume import fit
from tests.test_weighting_contract import CONSTANT, STRATEGIES, overrides_of

ACCUMULATED = ["famo", "gls", "equal_norm", "gradnorm", "stw_learned"]
CASES = [(name, 1) for name in STRATEGIES] + [(name, 2) for name in ACCUMULATED]


@pytest.mark.parametrize(("name", "accumulate"), CASES)
def test_trains_and_resumes(
    configure: Configure, tmp_path: Path, name: str, accumulate: int
) -> None:
    options = [*overrides_of(name), f"trainer.accumulate_grad_batches={accumulate}"]
    if name == "stw_learned":
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
