"""A sweep over alpha and beta: logged weights are what the formula makes of logged losses."""

import csv
import itertools
import json
import re
from pathlib import Path

import pytest

from tests.app.test_train import SMALL, run

ALPHAS, BETAS = (0.2, 0.27), (1.0, 1.05)
TASKS = ("text_pair", "ocr", "vqa_single", "vqa_multi")
FREE = [  # no limit and no floor in the way, so that the formula alone decides
    "weighting.rate_limit=null",
    "weighting.loss_floor=0.001",
    "phase1_steps=2",
    "total_steps=8",
    "weighting.beta.until_step=20",
    "validate_every=8",
    "callbacks.boost.factor=1.0",
    "baseline=false",
    "ablations=[]",
]


@pytest.mark.slow
def test_four_runs_differ_as_the_formula_says(folder: Path, cache: Path, tmp_path: Path) -> None:
    sweep = ["weighting.alpha.text_pair=0.2,0.27", "weighting.beta.foundation=1.0,1.05"]
    data = ["data=folder", f"data.root={folder}", f"data_cache={cache}"]
    run("train.py", "-m", *sweep, *data, *SMALL, *FREE, f"hydra.sweep.dir={tmp_path}")
    seen = set()
    for job, (alpha, beta) in enumerate(itertools.product(ALPHAS, BETAS)):
        folder_of_job = tmp_path / str(job)
        assert json.loads((folder_of_job / "results.json").read_text())["trained"]
        with (folder_of_job / "csv" / "metrics.csv").open() as file:
            rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
        update = next(r for r in rows if r["step"] == "6" and "weighting/base/ocr" in r)
        losses = {t: float(update[f"weighting/mean_loss/{t}"]) for t in TASKS}
        mean = sum(losses.values()) / len(losses)
        raw = {t: mean / losses[t] * (alpha if t == "text_pair" else 1.0) for t in TASKS}
        after = next(r for r in rows if r["step"] == "7" and "weight/ocr" in r)
        weights = tuple(float(after[f"weight/{t}"]) for t in TASKS)
        for task, weight in zip(TASKS, weights, strict=True):
            assert weight == pytest.approx(beta * raw[task] * 4 / sum(raw.values()), rel=1e-4)
        seen.add(weights)
        log = (folder_of_job / "train.log").read_text()
        assert re.search(r"task weights, step 6: .*inverse loss, normalize sum_to_T", log)
    assert len(seen) == 4
