"""Which curves share a chart in TensorBoard's custom-scalars tab."""

import re
from collections.abc import Iterable, Mapping

Chart = tuple[str, list[str]]  # a kind, and regular expressions of tags
Layout = dict[str, dict[str, Chart]]

SPACE = {
    "gap: matching − non-matching cosine": "val/{}/gap",
    "effect size of the gap": "val/{}/gap_effect",
    "alignment (low is good)": "space/{}/alignment",
    "uniformity (low is good)": "space/{}/uniformity",
    "effective rank": "space/{}/effective_rank",
    "modality gap": "space/{}/modality_gap",
}
GRADIENTS = {
    "gradient norms": "weighting/gradient_norm/{}",
    "mean cosine to the other tasks' gradients": "weighting/cosine/{}",
}
THROUGHPUT = {"rows per second": "rows_per_second", "seconds per step": "seconds_per_step"}
OF_TEXTS = ("space/{}/uniformity", "space/{}/effective_rank")  # need no pairs
LABELS = {"macro-F1": "macro_f1", "accuracy": "accuracy", "loss": "loss"}
RETRIEVAL = {"recall@1": "recall@1", "MRR": "mrr", "nDCG@10": "ndcg@10"}


def dashboard_layout(
    kinds: Mapping[str, str],
    schedules: Iterable[str] = (),
    gradients: bool = False,
    conflicts: bool = False,
    throughput: bool = False,
) -> Layout:
    """The layout for `SummaryWriter.add_custom_scalars`: category → chart → tags.

    TensorBoard takes tags as regular expressions that match from the start, so that a plain
    ``train/loss/ocr`` would draw ``train/loss/ocr/triplet`` too.

    Args:
        kinds: task -> "pairs", "scored" (pairs with scores), "labels" or "texts" (without any).
        schedules: what ``schedule/<name>`` is logged for.
        gradients: whether the weighting compares the tasks' gradients.
        conflicts: whether ``gradient/cosine/<task>/<task>`` is logged.
        throughput: whether ``throughput/…`` is.
    """
    compared = GRADIENTS if gradients else {}
    tasks = list(kinds)
    paired = [task for task, kind in kinds.items() if kind in ("pairs", "scored")]
    scored, labels = ([t for t, k in kinds.items() if k == kind] for kind in ("scored", "labels"))
    layout: Layout = {
        "task weights": {
            "weights λ · boost, as applied": _chart("weight/{}", tasks),
            "share of the total loss": _chart("train/share/{}", tasks),
            "weighted losses": _chart("train/weighted_loss/{}", tasks),
            **{title: _chart(tag, tasks) for title, tag in compared.items()},
        },
        "losses": {
            "all tasks": _chart("train/loss/{}", tasks),
            **{f"{task} and its parts": _with_parts(f"train/loss/{task}") for task in tasks},
        },
        "embedding space": {
            title: _chart(tag, tasks if tag in OF_TEXTS else paired)
            for title, tag in SPACE.items()
            if paired or tag in OF_TEXTS
        },
    }
    if paired:
        layout["retrieval, validation"] = {
            title: _chart(f"val/{{}}/{metric}", paired) for title, metric in RETRIEVAL.items()
        }
    if labels:
        layout["labels, validation"] = {
            title: _chart(f"val/{{}}/{metric}", labels) for title, metric in LABELS.items()
        }
    if scored:
        layout["scored pairs"] = {"Spearman, validation": _chart("val/{}/spearman", scored)}
    if conflicts and len(tasks) > 1:
        pairs: Chart = ("Multiline", [f"^{re.escape('gradient/cosine/')}[^/]+/[^/]+$"])
        layout["gradient conflicts"] = {"cosine of two tasks' gradients, shared head": pairs}
    if throughput:
        layout["throughput"] = {
            title: _chart("throughput/{}", [name]) for title, name in THROUGHPUT.items()
        }
    names = sorted(set(schedules))
    charts = {name: _chart("schedule/{}", [name]) for name in names if not name.startswith("lr_")}
    if rates := [name for name in names if name.startswith("lr_")]:
        charts["learning rates"] = _chart("schedule/{}", rates)
    return layout | ({"schedules": charts} if charts else {})


def _chart(tag: str, names: Iterable[str]) -> Chart:
    return "Multiline", [f"^{re.escape(tag.format(name))}$" for name in names]


def _with_parts(tag: str) -> Chart:
    return "Multiline", [f"^{re.escape(tag)}(/[^/]+)?$"]
