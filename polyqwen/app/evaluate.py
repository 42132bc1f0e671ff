"""Evaluates a trained run: from its own saved configuration to metrics, plots and a table."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, OmegaConf

from polyqwen.app.console import console
from polyqwen.app.report import write_again
from polyqwen.atomic_files import write_json, write_text
from polyqwen.build.run import Parts, build
from polyqwen.config.check import checked, load_saved_config
from polyqwen.data.tables.splits import View
from polyqwen.metrics.choice import hardest_queries, spread_queries
from polyqwen.metrics.similarity import similarity_samples
from polyqwen.metrics.split import SplitMetrics, name_of
from polyqwen.metrics.types import PairEmbeddings
from polyqwen.report.curves import plot_curves
from polyqwen.report.gallery import write_galleries
from polyqwen.report.gallery_image import plot_gallery
from polyqwen.report.results_table import (
    groups_markdown,
    groups_table,
    results_markdown,
    results_table,
)
from polyqwen.report.retrieval_examples import gallery_rows
from polyqwen.report.similarity_histogram import plot_similarity_histogram
from polyqwen.runs.run_folder import GALLERIES_FILE, HISTORY_FILE
from polyqwen.runs.weights import checkpoint_path, load_weights
from polyqwen.training import evaluation
from polyqwen.training.evaluation import EmbeddedView

log = logging.getLogger(__name__)
GROUPS = ("lang", "source")
GALLERIES = {"spread": spread_queries, "hardest": hardest_queries}
SMALLEST_GROUP = 10  # rows; fewer say nothing

Views = dict[str, EmbeddedView]


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Writes metrics, tables and plots into the run's folder and prints the tables.

    Returns:
        The metrics.

    Raises:
        ValueError: the folder is no run, its checkpoint is missing, or a gallery is unknown.
    """
    if unknown := set(cfg.galleries) - set(GALLERIES):
        raise ValueError(f"galleries may name {', '.join(GALLERIES)}, got {sorted(unknown)}")
    run_dir = Path(cfg.run_dir)
    run = _run_config(run_dir, cfg)
    checkpoint = checkpoint_path(run_dir, cfg.checkpoint)
    pl.seed_everything(run.seed, workers=True, verbose=False)
    parts = build(run)
    parts.model.to("cuda" if torch.cuda.is_available() else "cpu")
    untrained = _embed(parts, cfg.split, parts.data.splits.views(cfg.split))
    load_weights(parts.model, checkpoint)
    parts.data.splits.ablations[cfg.split] = list(cfg.ablations)
    trained = _embed(parts, cfg.split, parts.data.splits.views(cfg.split))

    report = _measure(parts, trained, untrained, cfg.split)
    report["checkpoint"], report["split"] = str(checkpoint), cfg.split
    report["data_root"] = cfg.data.root
    out = run_dir / cfg.out
    write_json(out / "metrics.json", report)
    tables = results_markdown(report["trained"], report["untrained"], report["chance"])
    grouped = any(report["groups"].values())  # rows may name neither language nor source
    tables += "\n" + groups_markdown(report["groups"]) if grouped else ""
    write_text(out / "results.md", tables)
    _plot(parts, trained, run, run_dir, out, cfg)
    console().print(results_table(report["trained"], report["untrained"], report["chance"]))
    if grouped:
        console().print(groups_table(report["groups"]))
    write_again(run_dir)
    console().print(f"written to {out}")
    return report


def _run_config(run_dir: Path, cfg: DictConfig) -> DictConfig:
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise ValueError(f"run_dir={run_dir} is not the folder of a run: it has no config.yaml")
    run = load_saved_config(path)
    if cfg.data.root is not None:
        source = {
            "_target_": "polyqwen.data.rows.sources.FolderSource",
            "root": cfg.data.root,
        }
        OmegaConf.update(run, "data.source", source, merge=False, force_add=True)
        OmegaConf.update(run, "data.root", cfg.data.root, force_add=True)
    return checked(run)


def _embed(parts: Parts, split: str, views: Sequence[View]) -> Views:
    return {
        name_of(view): evaluation.embed_view(parts.model, parts.data.eval_loader(split, view))
        for view in views
    }


def _measure(parts: Parts, trained: Views, untrained: Views, split: str) -> dict[str, Any]:
    report: dict[str, Any] = {"trained": {}, "untrained": {}, "chance": {}, "groups": {}}
    report["advantage_over_untrained"] = {}
    for name, view in trained.items():
        task = name.partition("/")[0]
        metrics = parts.model.metric(task)
        report["trained"][name] = evaluation.measure(metrics, view.pairs)
        report["chance"][name] = metrics.chance_of(view.pairs)
        if name != task:
            continue
        before = untrained[task]
        report["untrained"][task] = evaluation.measure(metrics, before.pairs)
        if metrics.main is None:
            continue
        report["groups"][task] = _groups(parts, task, split, view, before)
        report["advantage_over_untrained"][task] = _advantage(metrics, view.pairs, before.pairs)
    return report


def _groups(
    parts: Parts, task: str, split: str, view: EmbeddedView, before: EmbeddedView
) -> dict[str, Any]:
    """Metrics per language and source; a group's documents alone are its pool."""
    table = parts.data.splits.table(task, split)
    infos = [json.loads(info) for info in table[view.rows.tolist()]["info"]]
    groups: dict[str, Any] = {}
    metrics = parts.model.metric(task)
    for column in GROUPS:
        for value in dict.fromkeys(info.get(column) for info in infos):
            rows = [i for i, info in enumerate(infos) if info.get(column) == value]
            if value is None or len(rows) < SMALLEST_GROUP:
                continue
            pairs, other = (evaluation.choose(v.pairs, rows) for v in (view, before))
            groups[f"{column}={value}"] = {
                "rows": len(rows),
                "trained": evaluation.measure(metrics, pairs),
                "untrained": evaluation.measure(metrics, other),
                "advantage_over_untrained": _advantage(metrics, pairs, other),
            }
    return groups


def _advantage(
    metrics: SplitMetrics, trained: PairEmbeddings, other: PairEmbeddings
) -> dict[str, Any]:
    name, interval = evaluation.advantage(metrics, trained, other)
    return {"metric": name, **interval._asdict()}


def _plot(
    parts: Parts, views: Views, run: DictConfig, run_dir: Path, out: Path, cfg: DictConfig
) -> None:
    for task in (t for t in parts.data.tasks if t in views and parts.model.metric(t).paired):
        pairs, least = views[task].pairs, parts.model.metric(task).min_score
        matching, others = similarity_samples(pairs, least)
        plot_similarity_histogram(
            matching, others, f"{task}: similarity", out / f"similarity_{task}.png"
        )
        for kind in cfg.galleries:
            queries = GALLERIES[kind](pairs, least, cfg.gallery_rows)
            rows = gallery_rows(parts.data, task, cfg.split, pairs, queries, least)
            suffix, queries_of = ("", "") if kind == "spread" else (f"_{kind}", f"the {kind} ")
            title = f"{task}: what {queries_of}queries find"
            plot_gallery(rows, out / f"gallery_{task}{suffix}.png", title=title)
            if cfg.split == "test" and cfg.data.root is None:  # what the run's page tells of
                write_galleries({task: {kind: rows}}, run_dir / GALLERIES_FILE)
    history = run_dir / HISTORY_FILE
    if history.is_file():
        plot_curves(history, out, phase_switch=run.curriculum.get("switch_step") or None)
    else:
        log.warning("no %s: no curves are drawn", history)
