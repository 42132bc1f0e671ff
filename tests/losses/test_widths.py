"""Losses and metrics at several widths of the embedding, from the configuration to the log."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from polyqwen.build.run import build
from polyqwen.losses.grounded import GroundedLoss
from polyqwen.losses.matryoshka import MatryoshkaLoss
from polyqwen.losses.scored_text import ScoredTextLoss
from polyqwen.metrics.task_metrics import TaskMetrics
from polyqwen.metrics.types import PairEmbeddings, truncated
from tests.conftest import Configure
from tests.models.test_large_batch import gradients, made, relative
from tests.training.test_module import batch_of
from tests.training.test_resume import fit

WIDTHS = ["widths=matryoshka", "widths.dims=[8,128]"]


def pairs(rows: int = 12, size: int = 16) -> PairEmbeddings:
    query, document = F.normalize(torch.randn(2, rows, size), dim=-1)
    keys = torch.arange(rows)
    return PairEmbeddings(query, document, keys, keys + 100, torch.rand(rows))


def test_metrics_of_a_width_are_those_of_shortened_embeddings() -> None:
    given = pairs()
    metrics = TaskMetrics(scored=True, dims=[4, 16])
    metrics.update(given)
    found = metrics.compute()
    short = TaskMetrics(scored=True)
    cut = [F.normalize(x[:, :4], dim=1) for x in (given.query, given.document)]
    short.update(given._replace(query=cut[0], document=cut[1]))
    for name, value in short.compute().items():
        if name in ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "spearman"):
            assert found[f"{name}@4"] == pytest.approx(value)
            assert found[f"{name}@16"] == pytest.approx(found[name])
    assert found["spearman@4"] != pytest.approx(found["spearman"])
    assert "pool@4" not in found and "gap@4" not in found
    for dim in (0, 17):
        with pytest.raises(ValueError, match="cut embeddings of 16 dimensions"):
            truncated(given, dim)
    with pytest.raises(ValueError, match="widths of at least 1"):
        TaskMetrics(scored=False, dims=[0])


def test_settings_reach_the_inner_loss() -> None:
    inner = ScoredTextLoss()
    loss: Any = MatryoshkaLoss(inner, [2])
    loss.temperature, loss.score_weight, loss.dims = 0.5, 7.0, (1,)
    assert (inner.temperature, inner.score_weight, loss.score_weight) == (0.5, 7.0, 7.0)
    assert loss.dims == (1,) and not hasattr(inner, "dims")
    assert not hasattr(MatryoshkaLoss(GroundedLoss(), [2]), "score_weight")


@pytest.mark.parametrize("weighting", ["stw", "pcgrad"])
def test_a_run_logs_every_width_and_moves_every_schedule(
    configure: Configure, tmp_path: Path, weighting: str
) -> None:
    fit(
        configure,
        tmp_path,
        *WIDTHS,
        "callbacks.step_log.every=2",
        weighting=[f"weighting={weighting}"],
    )
    (log,) = tmp_path.rglob("metrics.csv")
    columns = log.read_text(encoding="utf-8").splitlines()[0].split(",")
    for task, metric in (("text_pair", "spearman"), ("ocr", "recall@1"), ("vqa_multi", "mrr")):
        assert {f"val/{task}/{metric}{at}" for at in ("", "@8", "@128")} <= set(columns)
    assert {"train/loss/ocr/info_nce@8", "train/loss/ocr/info_nce@128"} <= set(columns)
    assert {"schedule/temperature", "schedule/score_weight", "schedule/rank_weight"} <= set(columns)


def test_labels_are_left_alone_and_pairs_are_wrapped(configure: Configure) -> None:
    options = ["model=tiny_text", "task=[text_pair,sentiment]", "curriculum=single_phase"]
    model = build(configure(*WIDTHS, *options, "callbacks.boost=null")).model
    assert isinstance(model.losses["text_pair"], MatryoshkaLoss)
    assert not isinstance(model.losses["sentiment"], MatryoshkaLoss)


def test_cached_steps_have_the_gradients_of_plain_ones(configure: Configure) -> None:
    parts = made(configure, [*WIDTHS, "data.chunk_tokens=96"])
    batch = batch_of(parts, rows=4)
    truth = gradients(parts, batch, "off")
    assert relative(gradients(parts, batch, "cached"), truth) < 1e-6
    plain = made(configure, ["data.chunk_tokens=96"])
    plain.model.load_state_dict(parts.model.state_dict(), strict=False)
    assert_close(plain.model(batch), parts.model(batch))
    assert relative(gradients(plain, batch, "off"), truth) > 1e-2
