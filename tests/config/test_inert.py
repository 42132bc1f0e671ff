"""A key of the command line that nothing would read is refused; one that acts is not."""

import re
from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir

from polyqwen.app.entry import compose_train
from polyqwen.config.conf import CONF
from polyqwen.config.errors import ConfigError
from polyqwen.config.inert_rules import RULES

PAPER = "experiment=vipolyqwen data.root=x "
SHARES = "data.rows_per_task=null data.batch_size=16 "
INERT = {  # overrides, the key named, what to do instead
    "total_steps=9 curriculum.total_steps=8": ("total_steps", "curriculum.total_steps is given"),
    "curriculum=phase1 total_steps=9": ("total_steps", "follows phase1_steps"),
    "phase1_steps=4 curriculum.switch_step=5": ("phase1_steps", "curriculum.switch_step is given"),
    "curriculum=single_phase phase1_steps=4 schedule_steps=2": ("phase1_steps", "given"),
    "curriculum=staged shares_over=run": ("shares_over", "no second phase"),
    "curriculum=single_phase shares_over=run": ("shares_over", "no second phase"),
    "schedule_steps=5 callbacks.temperature=null callbacks.score_weight=null "
    "callbacks.rank_weight=null callbacks.gradient_clip=null": ("schedule_steps", "no warm-up"),
    "eval_steps=5": ("eval_steps", "add eval=tied"),
    "tasks.ocr.share=3": ("tasks.ocr.share", "data.rows_per_task.ocr sets the task's rows"),
    "data.rows_per_task=4 tasks.ocr.share=3": ("tasks.ocr.share", "data.rows_per_task sets"),
    SHARES + "tasks.ocr.batch_size=2 tasks.ocr.share=3": ("tasks.ocr.share", "tasks.ocr.batch"),
    "data.batch_size=8": ("data.batch_size", "every task has rows of its own"),
    "data.rows_per_task.ocr=8 tasks.ocr.batch_size=2": ("data.rows_per_task.ocr", "=2 sets"),
    "losses.text_pair.score_threshold=0.5": ("losses.text_pair.score_threshold", "weight"),
    "curriculum=single_phase callbacks.boost.factor=3": ("callbacks.boost.factor", "no switch"),
    "callbacks.gradient_clip.end=2 +trainer.gradient_clip_val=1": (
        "callbacks.gradient_clip.end",
        "trainer.gradient_clip_val is 1",
    ),
    PAPER + "task=[ocr] losses.text_pair.score_gate=weight": (
        "losses.text_pair.score_gate",
        "task text_pair takes no part",
    ),
    "data.rows_per_task.instruction=4": ("data.rows_per_task.instruction", "takes no part"),
    "weighting.alpha.instruction=2": ("weighting.alpha.instruction", "takes no part"),
    "tasks.text_pair.visual_tokens=8": ("tasks.text_pair.visual_tokens", "no pictures"),
    "shares_over=run": ("shares_over", "every task has rows of its own"),
    "curriculum=phase1 curriculum.ramp_steps=4": ("curriculum.ramp_steps", "first phase"),
    SHARES + "curriculum=phase1 curriculum.shares_over=run": ("curriculum.shares_over", "first"),
    "library_tasks=[text_pair]": ("library_tasks", "choose a library"),
    "resume_allow=[config]": ("resume_allow", "add resume=auto"),
    "losses.text_pair.rank_weight=0 losses.text_pair.rank_margin=0.1": (
        "losses.text_pair.rank_margin",
        "rank_weight is 0",
    ),
    "losses.ocr.triplet_weight=0 losses.ocr.margin=0.1": ("losses.ocr.margin", "weight is 0"),
    "task=[topic] curriculum=single_phase losses.topic.contrast_temperature=0.2": (
        "losses.topic.contrast_temperature",
        "contrast_weight is 0",
    ),
    "data.max_bad_share=0.1": ("data.max_bad_share", "bad_rows=skip reads it"),
    "weighting.calibration_steps=9": ("weighting.calibration_steps", "fallback is static"),
    "weighting=dwa weighting.static.ocr=2": ("weighting.static.ocr", "use weighting=static"),
    "weighting=mgda weighting.static.ocr=2": ("weighting.static.ocr", "MGDA sets all weights"),
    "weighting=aligned_mtl weighting.scale=median": ("weighting.scale", "normalize is sum_to_T"),
    "weighting.beta.tasks=[ocr]": ("weighting.beta.tasks", "mode=alpha reads it"),
    "large_batch=cached large_batch.memory_gb=2": ("large_batch.memory_gb", "mode is cached"),
    "large_batch=off large_batch.visual_gb=2": ("large_batch.visual_gb", "mode is off"),
}
ACTING = (
    SHARES + "total_steps=9 phase1_steps=4 shares_over=phase schedule_steps=2",
    "library=embedding library_tasks=[text_pair] data.rows_per_task.ocr=2 weighting.alpha.ocr=2",
    "library=embedding weighting=stw +weighting.alpha.ocr_cosent=2 tasks.ocr.visual_tokens=8",
    "losses.text_pair.rank_margin=0.1 losses.ocr.margin=0.1 curriculum.ramp_steps=4",
    "data.bad_rows=skip data.max_bad_share=0.1 resume=auto resume_allow=[config]",
    "weighting.fallback=calibrated weighting.calibration_steps=9 weighting.beta.mode=alpha "
    "weighting.beta.tasks=[ocr]",
    "weighting=lossrag weighting.static.ocr=2",
    "large_batch.memory_gb=2 large_batch.visual_gb=2 large_batch.visual_patches=64",
    "curriculum.total_steps=8 curriculum.switch_step=4",
    "curriculum=single_phase phase1_steps=4",
    "eval=tied eval_steps=5",
    "weighting.fallback=calibrated weighting.calibration_steps=9",
    "weighting.beta.mode=alpha weighting.beta.tasks=[ocr]",
    SHARES + "tasks.ocr.share=3",
    "data.rows_per_task.ocr=null data.batch_size=16 tasks.ocr.share=3",
    "data.rows_per_task.ocr=8",
    "losses.text_pair.score_gate=threshold losses.text_pair.score_threshold=0.5",
    "callbacks.boost.factor=3 callbacks.gradient_clip.end=2",
    "+trainer.gradient_clip_val=1",
    "curriculum=single_phase callbacks.boost=null callbacks.forgetting=null",
    PAPER + "task=[ocr]",
)


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.mark.parametrize("overrides", INERT)
def test_a_key_without_effect_is_refused(overrides: str) -> None:
    key, hint = INERT[overrides]
    with pytest.raises(ConfigError) as error:
        compose_train(["run_dir=x", *overrides.split()])
    text = str(error.value)
    assert text.startswith(f"{key}: has no effect: ") and hint in text, text


@pytest.mark.parametrize("overrides", ACTING)
def test_a_key_with_an_effect_is_not(overrides: str) -> None:
    compose_train(["run_dir=x", *overrides.split()])


def test_every_rule_is_shown() -> None:
    keys = {key for key, _ in INERT.values()}
    for pattern, _ in RULES:
        assert any(re.fullmatch(pattern, key) for key in keys), pattern
