"""Partially labelled texts: streams, one pass for all tasks, missing labels that cost nothing."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from polyqwen.build.run import Parts, build
from polyqwen.data.rows.task import Task
from polyqwen.data.tables.dataset import MultiTaskDataset, Row
from polyqwen.losses.types import Pairs
from polyqwen.runs.weights import load_weights
from tests.conftest import Configure

TASKS = ("sentiment", "topic", "sentiment5", "question_type", "intent")
TEXTS = [
    "model=tiny_text",
    "model.encoder.config.hidden_dropout_prob=0.0",
    "curriculum=single_phase",
    "weighting=static",
    "callbacks.boost=null",
    "callbacks.forgetting=null",
]
RUN = [*TEXTS, f"task=[text_pair,{','.join(TASKS)},text_unlabelled]"]


def records(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    lines = (folder / "text_labels" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def rows_of(parts: Parts, *addresses: tuple[str, int]) -> list[Row]:
    return MultiTaskDataset(parts.data.splits.tables("train")).__getitems__(addresses)


def test_a_stream_holds_the_rows_with_its_label(configure: Configure, folder: Path) -> None:
    data = build(configure(*RUN)).data
    given = records(folder)
    for task in TASKS:
        expected = [r["text"] for r in given if task in r["labels"]]
        found = [query["text"] for query in data.splits.table(task, "train")["query"]]
        assert found == expected and 0 < len(found) < len(given)
    unlabelled = [q["text"] for q in data.splits.table("text_unlabelled", "train")["query"]]
    assert unlabelled == [r["text"] for r in given if not r["labels"]] and unlabelled
    every = build(configure(*RUN, "tasks.text_unlabelled.unlabelled_only=false")).data
    assert len(every.splits.table("text_unlabelled", "train")) == len(given)


def test_unlabelled_means_no_label_of_the_run(configure: Configure, folder: Path) -> None:
    data = build(configure(*TEXTS, "task=[intent,text_unlabelled]")).data
    expected = sum("intent" not in r["labels"] for r in records(folder))
    assert len(data.splits.table("text_unlabelled", "train")) == expected


def test_all_streams_read_one_table_that_was_tokenised_once(configure: Configure) -> None:
    data = build(configure(*RUN, "data_cache=${run_dir}/own")).data
    data.splits.tables("train")
    names = {
        Path(data.splits.table(task, "train").cache_files[0]["filename"]).stem.partition("-")[0]
        for task in (*TASKS, "text_unlabelled")
    }
    assert len(names) == 1


def test_every_loss_sees_every_row_with_its_label(configure: Configure) -> None:
    """Whichever stream drew it; the naive loop over rows and tasks is the oracle."""
    parts = build(configure(*RUN))
    rows = rows_of(parts, *[(task, i) for task in parts.data.tasks for i in range(4)])
    batch = parts.data.collator(rows)
    for task in TASKS:
        classes = parts.data.tasks[task].classes
        expected = [
            (row.query.key, classes.index(row.labels[task])) for row in rows if task in row.labels
        ]
        own = batch.tasks[task]
        assert list(zip(own.query_key.tolist(), own.label.tolist(), strict=True)) == expected
        assert torch.equal(own.query, own.document)
    assert len(batch.tasks["sentiment"].label) > 4  # those of the streams topic and sentiment5 too
    assert batch.tasks["text_pair"].label is None
    blank = [r.query.key for r in rows if not r.labels and r.task != "text_pair"]
    assert batch.tasks["text_unlabelled"].query_key.tolist() == blank


def test_equal_texts_are_embedded_once(configure: Configure) -> None:
    parts = build(configure(*RUN))
    rows = rows_of(parts, *[(task, i) for task in TASKS for i in range(6)])
    both = next(row for row in rows if {"sentiment", "topic"} <= row.labels.keys())
    batch = parts.data.collator([both, both])
    assert len(batch.chunks) == 1 and len(batch.chunks[0].ids) == 1
    assert batch.tasks["sentiment"].query.tolist() == batch.tasks["topic"].query.tolist() == [0, 0]
    distinct = len({row.query.key for row in rows})
    assert sum(len(chunk.ids) for chunk in parts.data.collator(rows).chunks) == distinct


def test_the_step_equals_a_naive_loop_over_tasks(configure: Configure) -> None:
    """One pass for all tasks gives the losses and gradients of one pass per task."""
    parts = build(configure(*RUN, "losses.topic.uniformity_weight=0.3"))
    model = parts.model
    rows = rows_of(parts, *[(task, i) for task in TASKS for i in range(5)])
    total = model.training_step(parts.data.collator(rows), 0)
    total.backward()
    together = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    by_hand = torch.zeros(())
    for task in TASKS:
        own = [row for row in rows if task in row.labels]
        embedded = torch.cat([model(parts.data.collator([row], only=task)) for row in own])
        keys = torch.tensor([row.query.key for row in own])
        classes = parts.data.tasks[task].classes
        label = torch.tensor([classes.index(row.labels[task]) for row in own])
        by_hand = (
            by_hand + model.losses[task](Pairs(embedded, embedded, keys, keys, label=label)).total
        )
    assert_close(total, by_hand, atol=1e-5, rtol=1e-5)
    by_hand.backward()
    compared = 0.0
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert_close(together[name], parameter.grad, atol=1e-4, rtol=1e-3)
            compared = max(compared, float(parameter.grad.abs().max()))
    assert compared > 1e-2


def test_missing_labels_cost_and_count_for_nothing(configure: Configure) -> None:
    parts = build(configure(*RUN))
    model = parts.model
    rows = rows_of(parts, *[("intent", i) for i in range(4)])
    blank = [row._replace(labels={}, task="text_unlabelled") for row in rows[2:]]
    model.training_step(parts.data.collator([*rows[:2], *blank]), 0).backward()
    assert dict(zip(model.tasks, model.weighting.sums.rows.tolist(), strict=True)) == {
        **dict.fromkeys(model.tasks, 0.0),
        "intent": 2.0,
        "text_unlabelled": 2.0,
    }
    for task in ("topic", "sentiment"):
        assert all(p.grad is not None and not p.grad.any() for p in model.losses[task].parameters())
    assert all(p.grad.any() for p in model.losses["intent"].parameters())
    assert model.record is not None and set(model.record.outputs) == {"intent", "text_unlabelled"}


def test_a_batch_without_any_label_has_a_graph(configure: Configure) -> None:
    parts = build(configure(*TEXTS, f"task=[{','.join(TASKS)}]"))
    rows = [row._replace(labels={}) for row in rows_of(parts, ("intent", 0), ("topic", 1))]
    batch = parts.data.collator([row._replace(labels={"intent": "PlayMusic"}) for row in rows])
    total = parts.model.training_step(batch._replace(tasks={}), 0)
    total.backward()
    assert total == 0
    assert all(p.grad is not None and not p.grad.any() for p in parts.model.parameters())


def copy_with(folder: Path, to: Path, split: str, rows: list[dict[str, Any]]) -> Path:
    """The label rows alone, one split replaced."""
    (to / "text_labels").mkdir(parents=True)
    for name in ("train", "dev", "test"):
        own = rows if name == split else records(folder, name)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own)
        (to / "text_labels" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return to


def test_a_task_without_rows_in_a_split_is_left_out_there(
    configure: Configure, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [r for r in records(folder, "dev") if "question_type" not in r["labels"]]
    root = copy_with(folder, tmp_path / "data", "dev", rows)
    data = build(configure(*TEXTS, f"task=[{','.join(TASKS)}]", f"data.root={root}")).data
    with caplog.at_level("INFO"):
        for _ in range(2):
            names = [task for task, _ in data.splits.views("dev")]
    assert names == [t for t in TASKS if t != "question_type"]
    assert [task for task, _ in data.splits.views("test")] == list(TASKS)
    assert caplog.text.count("question_type has no rows in dev") == 1
    assert len(data.val_dataloader()) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("labels", {"topic": "canteen"}),
            r"train\.jsonl, line 3: 'canteen' is no class of",
        ),
        (("labels", {"intent": "PlayMusik"}), "did you mean 'PlayMusic'"),
        (("labels", ["topic"]), "line 3: labels must map labels to classes"),
        (("text", " "), "line 3: the query is empty"),
    ],
)
def test_bad_rows_are_named(
    configure: Configure, folder: Path, tmp_path: Path, change: tuple[str, Any], message: str
) -> None:
    rows = records(folder)
    rows[2] = {**rows[2], change[0]: change[1]}
    root = copy_with(folder, tmp_path / "data", "train", rows)
    data = build(configure(*TEXTS, f"task=[{','.join(TASKS)}]", f"data.root={root}")).data
    with pytest.raises(ValueError, match=message):
        data.splits.tables("train")


def test_a_misspelt_label_is_found_before_training(configure: Configure) -> None:
    cfg = configure(*TEXTS, "task=[intent,topic]", "tasks.intent.label=intend")
    with pytest.raises(ValueError, match=r"no row has the label 'intend'; did you mean 'intent'"):
        build(cfg).data.splits.tables("train")


def test_null_labels_and_missing_columns_are_missing_labels() -> None:
    task = Task(
        {"query_text": "text", "labels": "labels"}, prefix="<t>", label="x", classes=("a", "b")
    )
    assert task.example({"text": "t", "labels": {"x": None, "y": 3}}, "row").labels == {"y": "3"}
    assert task.example({"text": "t"}, "row").labels == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "x", "classes": ("a", "b")}, "needs the field labels"),
        ({"unlabelled_only": True}, "needs the field labels"),
        ({"fields": {"labels": "l"}, "label": "x", "classes": ("a",)}, "at least 2 different"),
        ({"fields": {"labels": "l"}, "label": "x", "classes": ("a", "a")}, "at least 2 different"),
        ({"fields": {"labels": "l"}, "classes": ("a", "b")}, "no label"),
        (
            {
                "fields": {"labels": "l"},
                "label": "x",
                "classes": ("a", "b"),
                "unlabelled_only": True,
            },
            "cannot learn 'x'",
        ),
    ],
)
def test_tasks_whose_parts_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task(**{"fields": {"query_text": "text"}, "prefix": "<t>", **options})


def test_trusted_rows_of_a_task_without_dev_rows(
    configure: Configure, folder: Path, tmp_path: Path
) -> None:
    rows = [r for r in records(folder, "dev") if "intent" not in r["labels"]]
    root = copy_with(folder, tmp_path / "data", "dev", rows)
    cfg = configure(*TEXTS, "task=[sentiment,intent]", f"data.root={root}", "data.trusted_rows=2")
    batch = build(cfg).data.trusted_batch()
    assert Counter(batch.tasks.keys()) == {"sentiment": 1}


def test_evaluation_counts_a_row_once_per_task(configure: Configure, folder: Path) -> None:
    data = build(configure(*RUN)).data
    for task, _ in data.splits.views("dev"):
        seen: Counter[int] = Counter()
        for batch in data.eval_loader("dev", (task, "none")):
            assert list(batch.tasks) == [task]
            seen.update(batch.tasks[task].row.tolist())
        assert set(seen.values()) == {1} and len(seen) == len(data.splits.table(task, "dev"))


def test_heads_are_taken_over_and_new_ones_start_afresh(
    configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = build(configure(*TEXTS, "task=[intent,topic]")).model
    torch.save({"state_dict": first.state_dict()}, tmp_path / "a.ckpt")
    torch.manual_seed(1)
    second = build(configure(*TEXTS, "task=[sentiment,intent]")).model
    fresh = second.losses["sentiment"].head.weight.clone()
    assert not torch.equal(second.losses["intent"].head.weight, first.losses["intent"].head.weight)
    with caplog.at_level("INFO"):
        load_weights(second, tmp_path / "a.ckpt")
    assert torch.equal(second.losses["intent"].head.weight, first.losses["intent"].head.weight)
    assert torch.equal(second.losses["sentiment"].head.weight, fresh)
    assert "has no losses.sentiment: it starts afresh" in caplog.text
    other = build(configure(*TEXTS, "task=[intent]", "tasks.intent.classes=[a,b]")).model
    with pytest.raises(ValueError, match=r"does not fit this model's losses\.intent"):
        load_weights(other, tmp_path / "a.ckpt")


def test_prefixes_go_where_the_other_run_has_them(
    configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As many tasks in another order, and more tasks: a task's prefix stays its own."""

    def drawn(seed: int, tasks: str) -> Any:
        torch.manual_seed(seed)
        model = build(configure(*TEXTS, f"task=[{tasks}]")).model
        with torch.no_grad():
            rows_of(model).normal_()
        return model

    def rows_of(model: Any) -> torch.Tensor:
        return model.encoder.model.get_input_embeddings().weight

    first = drawn(0, "text_pair,topic")
    checkpoint: dict[str, Any] = {"state_dict": first.state_dict()}
    first.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "a.ckpt")
    for tasks in ("topic,text_pair", "topic,instruction,text_pair", "text_pair"):
        second = drawn(1, tasks)
        before = rows_of(second).detach().clone()
        with caplog.at_level("INFO"):
            load_weights(second, tmp_path / "a.ckpt")
        words = min(second.prefixes.values())
        assert torch.equal(rows_of(second)[:words], rows_of(first)[:words])
        for prefix, row in second.prefixes.items():
            known = prefix in first.prefixes
            expected = rows_of(first)[first.prefixes[prefix]] if known else before[row]
            assert torch.equal(rows_of(second)[row], expected), (tasks, prefix)
    assert "has no prefix <instruction>: it starts afresh" in caplog.text


def test_heads_are_trained_in_the_heads_group(configure: Configure) -> None:
    model = build(configure(*TEXTS, "task=[intent,topic]")).model
    groups = {g["name"]: {id(p) for p in g["params"]} for g in _optimizer(model).param_groups}
    head = model.losses["intent"]
    assert id(head.head.weight) in groups["head"]
    assert {id(head.head.bias), id(head.log_scale)} <= groups["head_no_decay"]


def _optimizer(model: Any) -> Any:
    return model.configure_optimizers()["optimizer"]
