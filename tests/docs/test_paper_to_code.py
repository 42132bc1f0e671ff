"""docs/paper_to_code.md names files, tests and keys that are there, with the values that hold."""

import ast
import re
from collections.abc import Iterator, Sequence

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from polyqwen.config.identity import flat_settings
from tests.config.test_conf import composed
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "paper_to_code.md"
RECIPES = ("experiment=vipolyqwen", "experiment=vipolyqwen_stw")
CHOICES = (*RECIPES, "experiment=stw_report", "experiment=text_multitask")
CHOICES = (*CHOICES, "weighting=calibrated", "weighting=stw_learned", "weighting=lossrag")
CODE = re.compile(r"`([^`]+)`")
KEY = re.compile(r"[a-z_]+(\.[a-z_0-9]+)*=\S.*")
# what the paper and the report print; each must be told in the table of its recipe
PAPER = """
model.encoder.name model.encoder.freeze_vision model.pooling._target_ model.pooling.num_queries
model.projection._target_ model.projection.alpha model.projection.gain model.tokens.prefix_mode
tasks.text_pair.prefix tasks.ocr.prefix tasks.vqa_single.prefix tasks.vqa_multi.prefix
losses.text_pair._target_ losses.ocr._target_ losses.vqa_single._target_ losses.vqa_multi._target_
losses.text_pair.temperature losses.ocr.temperature losses.vqa_single.temperature
losses.vqa_multi.temperature losses.text_pair.score_weight losses.text_pair.rank_weight
losses.text_pair.rank_margin losses.text_pair.score_gate losses.ocr.margin
losses.vqa_single.margin losses.vqa_multi.margin curriculum.switch_step curriculum.total_steps
curriculum.foundation curriculum.shares_over tasks.text_pair.share tasks.ocr.share
tasks.vqa_single.share tasks.vqa_multi.share callbacks.boost.factor callbacks.boost.switch_step
callbacks.boost.task weighting._target_ weighting.static.text_pair weighting.static.ocr
weighting.static.vqa_single weighting.static.vqa_multi callbacks.temperature.start
callbacks.score_weight.start callbacks.rank_weight.start callbacks.gradient_clip.start
callbacks.gradient_clip.end data.batch_size trainer.devices trainer.accumulate_grad_batches
trainer.precision optimizer.backbone_lr optimizer.head_lr optimizer.backbone_weight_decay
optimizer.head_weight_decay
"""
REPORT = """
weighting._target_ weighting.normalize weighting.alpha.text_pair weighting.beta.foundation
weighting.beta.balance weighting.eval_steps weighting.fallback weighting.calibration_steps
"""
# what neither prints, or prints otherwise, and we chose
CHOSEN = """
optimizer.warmup_fraction optimizer.final_fraction optimizer.head_weight_decay optimizer.betas
tasks.ocr.negatives_from tasks.text_pair.negatives_from losses.ocr.triplet_weight
callbacks.boost.boost_steps callbacks.boost.shape callbacks.temperature.steps
callbacks.gradient_clip.shape callbacks.nonfinite.max_bad_steps model.projection.output_size
curriculum.ramp_steps losses.text_pair.symmetric
"""
CHOSEN_OF_STW = """
weighting.beta.until_step weighting.beta.mode weighting.bounds weighting.rate_limit
weighting.loss_floor weighting.min_tasks weighting.min_samples weighting.alpha.ocr
weighting.eval_steps validate_every callbacks.step_log.every
"""


def tables(second: str) -> Iterator[tuple[str, list[str]]]:
    """Rows of tables whose second heading is given: what they are about, and the cells."""
    choice, inside = "", False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            inside = False
            choice = next((c for c in CODE.findall(line) if c in CHOICES), choice)
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 4, line
        if inside and cells[0][0] != ":":
            yield choice, cells
        inside = inside or cells[1] == second


ROWS = list(tables("file"))
DEVIATIONS = list(tables("read as"))


def told(choice: str, rows: Sequence[tuple[str, list[str]]]) -> list[str]:
    """``key=value`` of all rows about a configuration."""
    cells = [keys for about, (_, _, keys, _) in rows if about == choice]
    entries = [entry for cell in cells for entry in CODE.findall(cell)]
    assert all(KEY.fullmatch(entry) for entry in entries), entries
    return entries


def test_all_tables_are_read() -> None:
    assert len(ROWS) > 65 and {choice for choice, _ in ROWS} == set(CHOICES)
    assert len(DEVIATIONS) > 30 and {choice for choice, _ in DEVIATIONS} == set(RECIPES)


@pytest.mark.parametrize(
    ("choice", "rows", "needed"),
    [
        (RECIPES[0], ROWS, PAPER),
        (RECIPES[1], ROWS, REPORT),
        (RECIPES[0], DEVIATIONS, CHOSEN),
        (RECIPES[1], DEVIATIONS, CHOSEN_OF_STW),
    ],
    ids=["paper", "report", "chosen", "chosen_of_stw"],
)
def test_every_value_of_a_recipe_is_told(
    choice: str, rows: Sequence[tuple[str, list[str]]], needed: str
) -> None:
    keys = {entry.partition("=")[0] for entry in told(choice, rows)}
    assert not set(needed.split()) - keys


def test_the_two_recipes_differ_in_the_weighting_alone() -> None:
    paper, stw = (flat_settings(_whole(composed(choice))) for choice in RECIPES)
    different = {key for key in {*paper, *stw} if paper.get(key) != stw.get(key)}
    assert different and all(key == "name" or key.startswith("weighting.") for key in different)


def _whole(cfg: DictConfig) -> DictConfig:
    """With what a run alone knows."""
    return OmegaConf.merge(cfg, {"run_dir": "RUN", "data": {"root": "DATA"}})  # type: ignore[return-value]


def test_files_and_tests_are_there() -> None:
    for _, (what, files, _, tests) in ROWS:
        assert CODE.findall(files) and CODE.findall(tests), what
        for path in CODE.findall(files):
            assert (ROOT / path).is_file(), path
        for test in CODE.findall(tests):
            path, _, name = test.partition("::")
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name in functions, test


@pytest.mark.parametrize("choice", CHOICES)
def test_keys_have_the_values_that_are_told(choice: str) -> None:
    cfg = composed(choice)
    entries = [*told(choice, ROWS), *told(choice, DEVIATIONS)]
    assert entries
    for entry in entries:
        key, _, value = entry.partition("=")
        assert value_of(cfg, key) == yaml.safe_load(value), entry


def value_of(cfg: DictConfig, key: str) -> object:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    assert name in node, f"there is no {key}"
    value = node[name]
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
