"""Every option of every group composes, and every `_target_` takes the keys it is given."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from polyqwen.app.study.compose import compose_all
from polyqwen.build.precheck import check_values
from polyqwen.config.added_arguments import added_to
from tests.conftest import ROOT

CONF = ROOT / "conf"
GROUPS = (
    *(
        "data",
        "curriculum",
        "weighting",
        "library",
        "widths",
        "large_batch",
        "optimizer",
        "callbacks",
    ),
    *("trainer", "logger", "model"),
)
PARTS = ("model/encoder", "model/pooling", "model/projection", "model/sharing")
PARTS += ("model/tuning", "data/sampling")
OPTIONS = sorted(
    f"{group}={path.stem}"
    for group in (*GROUPS, *PARTS, "experiment", "hparams_search", "eval", "study")
    for path in (CONF / group).glob("*.yaml")
    if path.stem not in ("base", "choosing")
)
WEIGHTS = ("score_weight", "rank_weight")
MODELS = [option.partition("=")[2] for option in OPTIONS if option.startswith("model=")]
TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=["run_dir=/nowhere", *overrides])


def targets(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}".lstrip("."))


def binds(path: str, node: dict[str, Any]) -> None:
    signature = inspect.signature(get_object(node["_target_"]))
    keys = {k: None for k in node if not k.startswith("_")}
    added = added_to(path)
    extra = {*added.keywords, *(set(added.optional) & set(signature.parameters))}
    assert not extra & set(keys), "left to the run"
    signature.bind(*added.positional, **keys, **dict.fromkeys(extra))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_binds(option: str) -> None:
    cfg = composed(option)
    if option == "eval=tied":
        cfg.eval_steps = 5  # needed
    for missing in ("data.root", "data.source.datasets"):
        if OmegaConf.select(cfg, missing.rpartition(".")[0]) is not None and OmegaConf.is_missing(
            OmegaConf.select(cfg, missing.rpartition(".")[0]), missing.rpartition(".")[2]
        ):
            OmegaConf.update(cfg, missing, "x" if missing == "data.root" else {})
    OmegaConf.resolve(cfg)  # as --cfg job --resolve does
    found = list(targets(OmegaConf.to_container(cfg)))
    assert len(found) > 20
    for path, node in found:
        binds(path, node)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_alone(task: str) -> None:
    cfg = composed(f"task=[{task}]", "curriculum=single_phase")
    assert list(cfg.tasks) == list(cfg.losses) == list(cfg.metrics) == [task]
    assert list(cfg.weighting.static) == [task]


@pytest.mark.parametrize("name", ["weighting", "claims"])
def test_every_run_of_the_studies_passes_the_check(name: str, tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        study = instantiate(compose("train", overrides=[f"study={name}"]).study)
        jobs = study.plan(tmp_path, ["curriculum.total_steps=200"])
        configurations = compose_all(jobs, check_values)
    assert len(jobs) == len(configurations) == len(study.variants) * 2 > 30
    for job, cfg in configurations.items():
        assert cfg.seed == cfg.data.seed == job.seed and cfg.curriculum.total_steps == 200
        assert cfg.callbacks.last.dirpath == f"{tmp_path}/{job.variant}/seed_{job.seed}/checkpoints"
    if name == "weighting":
        there = {path.stem for path in (CONF / "weighting").glob("*.yaml")} - {"torchjd"}
        assert there == set(study.variants)


def test_a_single_phase_is_resolved_as_well() -> None:
    for weighting in ("stw", "stw_learned", "stw_report"):
        cfg = composed("curriculum=single_phase", f"weighting={weighting}")
        OmegaConf.resolve(cfg)
        assert cfg.schedule_steps == 300 and list(cfg.weighting.beta.tasks) == ["text_pair"]


def test_experiments_say_what_they_are_for() -> None:
    for path in (CONF / "experiment").glob("*.yaml"):
        first, second = path.read_text(encoding="utf-8").splitlines()[:2]
        assert first == "# @package _global_" and second.startswith("# "), path


def test_every_part_is_built_on_and_none_is_an_option() -> None:
    files = {path: path.read_text(encoding="utf-8") for path in CONF.rglob("*.yaml")}
    parts = [path for path in files if path.is_relative_to(CONF / "parts")]
    assert len(parts) > 5
    for part in parts:
        whole = f"/{part.relative_to(CONF).with_suffix('').as_posix()}@"
        beside = [files[path] for path in part.parent.glob("*.yaml")]
        uses = [text for text in files.values() if f"- {whole}" in text]
        uses += [text for text in beside if f"- {part.stem}@_here_" in text]
        assert len(uses) > 1, part
    primary = (CONF / "train.yaml").read_text(encoding="utf-8")
    assert "parts" not in primary and not {"labels", "base", "published"} & {*TASKS, *MODELS}


def test_the_papers_recipe() -> None:
    """Every number of the paper and of the design's table."""
    cfg = composed("experiment=vipolyqwen", "data.root=x")
    assert cfg.model.encoder.name == "Qwen/Qwen2-VL-2B-Instruct" and cfg.model.encoder.freeze_vision
    assert cfg.model.pooling.num_queries == 4 and cfg.model.pooling.init_std == 0.02
    assert cfg.model.projection.alpha == 0.5 and cfg.model.projection.output_size == 1024
    assert cfg.model.tokens.max_tokens == 512
    assert {t.visual_tokens for t in cfg.tasks.values()} == {768}
    assert cfg.data.batch_size * cfg.trainer.devices * cfg.trainer.accumulate_grad_batches == 480
    assert [t.share for t in cfg.tasks.values()] == [3.5, 1.5, 1.5, 1.0]
    assert cfg.curriculum.total_steps * 480 == 7_500_000
    assert (cfg.curriculum.switch_step, cfg.curriculum.shares_over) == (2000, "run")
    o = cfg.optimizer
    assert (o.backbone_lr, o.head_lr, o.warmup_fraction) == (1e-4, 3e-4, 0.03)
    assert (o.backbone_weight_decay, o.head_weight_decay) == (0.001, 0.05)
    c = cfg.callbacks
    text = cfg.losses.text_pair
    assert {n: (c[n].start, text[n], c[n].steps) for n in ("temperature", *WEIGHTS)} == {
        "temperature": (0.1, 0.07, 2000),
        "score_weight": (0.5, 3.0, 2000),
        "rank_weight": (0.1, 1.0, 2000),
    }
    clip = c.gradient_clip
    assert (clip.start, clip.end, clip.steps, clip.shape) == (50.0, 5.0, 2000, "cosine")
    assert (c.boost.factor, c.boost.boost_steps, c.boost.switch_step) == (2.0, 500, 2000)
    w = cfg.weighting
    assert w._target_ == "polyqwen.weighting.by_loss.static.StaticWeighting"
    assert dict(w.static) == {"text_pair": 1.0, "ocr": 1.0, "vqa_single": 1.0, "vqa_multi": 1.2}
    w = composed("experiment=vipolyqwen_stw", "data.root=x").weighting
    assert dict(w.static) == {"text_pair": 1.0, "ocr": 1.0, "vqa_single": 1.0, "vqa_multi": 1.2}
    assert (w.eval_steps, w.normalize, w.loss_floor) == (5, "none", 0.1)
    assert (w.beta.foundation, w.beta.balance, w.beta.until_step) == (1.05, 0.95, 2000)
    assert (w.alpha.text_pair, w.alpha.instruction, w.alpha.ocr) == (0.27, 1.25, 1.0)
    assert cfg.losses.text_pair.score_gate == "none" and cfg.losses.text_pair.rank_margin == 0.05
    assert cfg.losses.ocr.margin == 0.2 and cfg.losses.ocr.triplet_weight == 1.0
    assert [t.prefix for t in cfg.tasks.values()] == [
        "<text_pair>",
        "<ocr>",
        "<vqa_single>",
        "<vqa_multi>",
    ]


def test_the_reports_run_has_five_tasks_and_fast_updates() -> None:
    cfg = composed("experiment=stw_report")
    assert "instruction" in cfg.tasks and cfg.weighting.eval_steps == 5
    assert cfg.weighting.normalize == "none"


def test_no_class_of_the_package_knows_hydra() -> None:
    package = Path(ROOT / "polyqwen")
    app = ("__main__.py", "app", "build", "config", "inference", "runs")
    files = [p for p in package.rglob("*.py") if p.relative_to(package).parts[0] not in app]
    assert len(files) > 40
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert "hydra" not in text.lower() and "omegaconf" not in text.lower(), path
