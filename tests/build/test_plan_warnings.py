"""Every warning of a plan, and a plain run that has none."""

from pathlib import Path

import pytest
from omegaconf import open_dict

from polyqwen.build.plan.make import make_plan
from polyqwen.build.plan.rows import SplitRows
from polyqwen.build.plan.types import Plan
from polyqwen.build.plan.warnings import FEWEST_EVALUATED, FEWEST_NEGATIVES, MOST_PASSES
from tests.conftest import Configure

DEFAULT = ("text_pair", "ocr", "vqa_single", "vqa_multi")


def plan(configure: Configure, *overrides: str, rows: int = 10_000, evaluated: int = 400) -> Plan:
    """Of the default run at so many rows a task: no data is looked for."""
    cfg = configure(*overrides, small=False)
    sizes = SplitRows(rows, evaluated, evaluated)
    return make_plan(cfg, rows={str(task): sizes for task in cfg.tasks})


def warned(plan: Plan) -> dict[str, str]:
    """Text of each rule's warning."""
    return {warning.rule: warning.text for warning in plan.warnings}


def test_a_plain_run_has_none(configure: Configure) -> None:
    assert plan(configure).warnings == ()


def test_a_second_phase_that_never_begins(configure: Configure) -> None:
    found = warned(plan(configure, "total_steps=200"))
    text = found["phase never begins"]
    assert "at step 300, and the run ends at 200" in text and "raise total_steps" in text
    assert "ocr, vqa_single and vqa_multi never train" in text
    assert "task never drawn" not in found  # said already


def test_a_task_that_is_never_drawn(configure: Configure) -> None:
    cfg = configure("schedule_steps=5", "weighting=static", "callbacks.boost=null", small=False)
    cfg.callbacks.forgetting = None
    with open_dict(cfg):
        cfg.curriculum = {
            "_target_": "polyqwen.data.sampling.curriculum.Curriculum",
            "phases": [{"name": "all", "shares": {"text_pair": 1, "ocr": 1, "vqa_multi": 1}}],
            "total_steps": 20,
            "start_step": 0,
        }
    found = warned(make_plan(cfg, rows=dict.fromkeys(DEFAULT, SplitRows(1000, 400, 400))))
    assert found["task never drawn"].startswith("vqa_single is never drawn")
    assert "task=[…]" in found["task never drawn"]


def test_too_many_passes(configure: Configure) -> None:
    found = [w.text for w in plan(configure, rows=1600).warnings if w.rule == "many passes"]
    assert found[0].startswith("text_pair passes 32.0 times over its 1,600 rows; lower")
    assert found[0].endswith("lower data.rows_per_task.text_pair or total_steps")
    assert len(found) == 3  # all but ocr
    free = ("data.rows_per_task=null", "data.batch_size=100")
    (text,) = [w.text for w in plan(configure, *free, rows=4800).warnings]
    assert text.endswith("lower tasks.text_pair.share or total_steps")
    assert 51200 / 3000 > MOST_PASSES > 51200 / 3300
    assert "many passes" in warned(plan(configure, "task=[text_pair]", rows=3000))
    assert "many passes" not in warned(plan(configure, "task=[text_pair]", rows=3300))


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["data.rows_per_task.ocr=8"], "data.rows_per_task.ocr"),
        (["trainer.accumulate_grad_batches=2", "data.rows_per_task.ocr=8"], "accumulate"),
    ],
)
def test_too_few_negatives(configure: Configure, overrides: list[str], key: str) -> None:
    text = warned(plan(configure, *overrides))["few negatives"]
    few = f"fewer than {FEWEST_NEGATIVES} negatives a row"
    assert text.startswith(f"{few}: in phase balance ocr 7.0; ")
    assert key in text


def test_nine_rows_have_enough_negatives(configure: Configure) -> None:
    assert "few negatives" not in warned(plan(configure, "data.rows_per_task.ocr=9"))


def test_warmups_without_steps_share_a_line(configure: Configure) -> None:
    text = warned(plan(configure, "schedule_steps=0"))["length of a schedule"]
    for name in ("temperature of text_pair", "score_weight", "rank_weight", "gradient clip"):
        assert name in text
    assert "have no steps" in text and text.endswith("raise schedule_steps")


def test_warmups_longer_than_the_run(configure: Configure) -> None:
    text = warned(plan(configure, "schedule_steps=2000"))["length of a schedule"]
    assert "longer than the run" in text and "0 to 2,000" in text and "1,600" in text


def test_a_boost_longer_than_what_is_left(configure: Configure) -> None:
    text = warned(plan(configure, "callbacks.boost.boost_steps=1500"))["length of a schedule"]
    assert "boost of text_pair" in text and "callbacks.boost.boost_steps" in text


def test_a_learning_rate_without_the_warmup_that_was_asked_for(configure: Configure) -> None:
    few = ["total_steps=12", "phase1_steps=4", "callbacks.boost=null"]
    text = warned(plan(configure, *few, "schedule_steps=4"))["length of a schedule"]
    assert "lr warm-up" in text and "optimizer.warmup_fraction" in text
    on_purpose = plan(configure, *few, "schedule_steps=4", "optimizer.warmup_fraction=0.0")
    assert "length of a schedule" not in warned(on_purpose)


def test_another_batch_than_the_one_asked_for(configure: Configure) -> None:
    text = warned(plan(configure, "data.batch_size=64"))["another batch than asked"]
    assert "has 32 rows, not the 64 of data.batch_size=64" in text or "100 rows" in text
    assert "data.rows_per_task=null" in text


def test_a_batch_that_is_divided_by_shares_is_the_one_asked_for(configure: Configure) -> None:
    more = ("trainer.devices=4", "trainer.accelerator=cpu", "trainer.accumulate_grad_batches=3")
    found = plan(configure, "data.batch_size=7", "data.rows_per_task=null", *more)
    assert {phase.rows for phase in found.phases} == {7 * 12.0}
    assert "another batch than asked" not in warned(found)


def test_a_step_of_more_rows_than_there_are_is_refused(configure: Configure) -> None:
    with pytest.raises(ValueError, match="a step takes 128 rows of task 'text_pair', which has 64"):
        plan(configure, "trainer.devices=4", "trainer.accelerator=cpu", rows=64)


@pytest.mark.parametrize("evaluated", [FEWEST_EVALUATED - 1, 0])
def test_an_evaluation_too_small_to_rank_by(configure: Configure, evaluated: int) -> None:
    texts = [w.text for w in plan(configure, evaluated=evaluated).warnings]
    assert len(texts) == 2 and f"ocr {evaluated}" in texts[0] and "data.eval_rows" in texts[0]
    assert texts[1].startswith("too few test rows")


def test_every_warning_is_one_line(configure: Configure, tmp_path: Path) -> None:
    found = plan(configure, "total_steps=200", "schedule_steps=0", rows=64, evaluated=5)
    assert len(found.warnings) >= 4
    assert all("\n" not in w.text and len(w.text) < 400 for w in found.warnings)
