"""TensorBoard's custom-scalars tab (which curves share a chart) and a run's row in HParams."""

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

Chart = tuple[str, list[str]]  # a kind, and regular expressions of tags
Layout = dict[str, dict[str, Chart]]
HyperParameters = Mapping[str, bool | int | float | str]

GAPS = {  # matching − non-matching cosine
    "gap of training batches, and the paper's": "train/gap/{}",
    "gap of validation rows, and the paper's": "val/{}/gap",
}
REFERENCE_GAP = "reference/gap/{}"  # by the names of `polyqwen.metrics.gap_reference`
PAIRED = ("pairs", "scored")
SPACE = {
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
    reference: Iterable[str] = (),
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
        reference: lines of ``reference/gap/…``, drawn beside the measured gaps.
    """
    reference = list(reference)
    compared = GRADIENTS if gradients else {}
    tasks = list(kinds)
    paired = [task for task, kind in kinds.items() if kind in PAIRED]
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
            for title, tag in (GAPS | SPACE if paired else SPACE).items()
            if paired or tag in OF_TEXTS
        },
    }
    for title in GAPS if paired else ():
        layout["embedding space"][title][1].extend(_chart(REFERENCE_GAP, reference)[1])
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


def session_start(values: HyperParameters) -> Any:
    """The summary that makes a run a row of the table.

    There is no summary of the *experiment* on purpose: TensorBoard would take one run's and hide
    the columns of all others. Without it the columns are the union over all runs, those that differ
    between runs first.

    Args:
        values: column → value.
    """
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    # Without a trial of its own a run is named by its folder; the default would join equal ones.
    return hparams_pb(dict(values), trial_id="")


def session_end(success: bool) -> Any:
    """The summary that tells whether a run came to its end."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    summary = Summary()
    summary.value.add(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(
            plugin_data_pb2.HParamsPluginData(session_end_info=end)
        ),
        tensor=metadata.NULL_TENSOR,
    )
    return summary
