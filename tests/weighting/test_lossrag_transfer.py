"""A policy leaves its run, is averaged with others, and chooses among losses it has never seen."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from polyqwen.__main__ import main
from polyqwen.weighting.lossrag.context import ENTRIES
from polyqwen.weighting.lossrag.descriptors import FEATURES
from polyqwen.weighting.lossrag.strategy import LossRAG
from polyqwen.weighting.lossrag.transfer import PARAMETERS, average, extract, from_checkpoints
from tests.weighting.test_lossrag import parameters, rag, told

OTHERS = ("one", "two", "three", "four")
SEEN = tuple(torch.randn(n, dtype=torch.float64) for n in (len(FEATURES), len(ENTRIES)))


def learnt(steps: int = 6, **options: object) -> LossRAG:
    weighting = rag(**{"ids": False, **options})
    for step in range(steps):
        told(weighting, step)
    return weighting


def saved(weighting: LossRAG, path: Path) -> Path:
    """As a trainer's checkpoint has it, among other things."""
    state = {f"weighting.{name}": value for name, value in weighting.state_dict().items()}
    torch.save({"state_dict": {**state, "encoder.x": torch.ones(1)}, "epoch": 0}, path)
    return path


def scores(weighting: LossRAG) -> Tensor:
    features, context = SEEN
    rows = torch.stack([features, -features, features.flip(0), features.roll(3)])
    return weighting.policy.scores(rows, context, torch.arange(4))


def test_a_frozen_policy_scores_other_losses_as_in_its_own_run(tmp_path: Path) -> None:
    source = learnt()
    from_checkpoints([saved(source, tmp_path / "a.ckpt")], tmp_path / "made" / "policy.pt")
    path = str(tmp_path / "made" / "policy.pt")
    taken = rag(OTHERS, ids=False, policy_from=path, frozen=True)
    assert torch.allclose(scores(taken), scores(source)) and scores(taken).std() > 0.1
    assert not torch.allclose(scores(taken), scores(rag(OTHERS, ids=False)))
    before = {name: value.clone() for name, value in taken.state_dict().items()}
    for step in range(4):
        told(taken, step)
    moved = {n for n, v in taken.state_dict().items() if not torch.equal(v, before[n])}
    assert not any(".scale." in n or n.startswith("policy.") for n in moved)
    assert any(n.startswith("library.descriptors.averages") for n in moved)
    warm = rag(OTHERS, ids=False, policy_from=path)
    assert all(torch.equal(v, parameters(taken)[n]) for n, v in parameters(warm).items())
    told(warm, 0)
    assert not torch.equal(warm.policy.projection, taken.policy.projection)


def test_a_resumed_run_does_not_start_from_the_policy_again(tmp_path: Path) -> None:
    from_checkpoints([saved(learnt(2), tmp_path / "a.ckpt")], tmp_path / "policy.pt")
    path = str(tmp_path / "policy.pt")
    first = rag(ids=False, policy_from=path)
    told(first, 0)
    again = rag(ids=False, policy_from=path)
    again.load_state_dict(first.state_dict())
    assert torch.equal(again.policy.projection, first.policy.projection)


def test_rotated_policies_average_to_the_same_scores() -> None:
    """Embeddings and query turned together are the same policy; so is the mean with the turned."""
    source = learnt()
    policy = extract(source.state_dict(), "here")
    turn, _ = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))
    turned = {n: turn @ v if n in PARAMETERS else v for n, v in policy["state"].items()}
    mean = average([policy, {**policy, "state": turned}])
    taken = rag(OTHERS, ids=False)
    taken.load_state_dict(mean["state"], strict=False)
    assert torch.allclose(scores(taken), scores(source))
    plain = {n: (v + turned[n]) / 2 for n, v in policy["state"].items()}
    taken.load_state_dict(plain, strict=False)
    assert not torch.allclose(scores(taken), scores(source))


def test_the_command_averages_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [saved(learnt(steps), tmp_path / f"{steps}.ckpt") for steps in (3, 9)]
    out = tmp_path / "policy.pt"
    monkeypatch.setattr(sys, "argv", ["polyqwen", "policy", *map(str, paths), "--to", str(out)])
    main()
    assert f"weighting.policy_from={out}" in capsys.readouterr().out
    own = [extract(torch.load(p, weights_only=True)["state_dict"], "")["state"] for p in paths]
    made = torch.load(out, weights_only=True)["state"]
    for name in made:
        if name not in PARAMETERS:
            assert torch.allclose(made[name], (own[0][name] + own[1][name]) / 2), name
    monkeypatch.setattr(sys, "argv", ["polyqwen", "policy", str(out), "--to", str(out)])
    with pytest.raises(SystemExit):
        main()
    assert "holds no policy; it must be of a run" in capsys.readouterr().err


def test_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"leans on ids .* weighting\.ids=false"):
        extract(learnt(1, ids=True).state_dict(), "run a")
    with pytest.raises(ValueError, match="run b holds no policy"):
        extract({"encoder.x": torch.ones(1)}, "run b")
    with pytest.raises(ValueError, match="no policies"):
        average([])
    kinds = [extract(learnt(1, context=kind).state_dict(), "") for kind in ("state", "none")]
    with pytest.raises(ValueError, match="context none and state cannot be averaged"):
        average(kinds)
    with pytest.raises(ValueError, match="there is no file"):
        rag(policy_from=str(tmp_path / "nowhere.pt"))
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"is no policy; make one with"):
        rag(policy_from=str(tmp_path / "other.pt"))
    from_checkpoints([saved(learnt(1), tmp_path / "a.ckpt")], tmp_path / "policy.pt")
    with pytest.raises(ValueError, match=r"learnt with weighting\.context=state, got both"):
        rag(policy_from=str(tmp_path / "policy.pt"), context="both")
