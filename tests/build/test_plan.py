"""The plan of a run: its model, schedules and memory, what it counts, what it cannot know."""

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from polyqwen.build.plan.activations import kept_bytes
from polyqwen.build.plan.make import make_plan
from polyqwen.build.plan.model import plan_model
from polyqwen.build.plan.types import MemoryPlanned, Plan, plain
from polyqwen.build.run import build
from polyqwen.models.memory.plan import STATE
from tests.conftest import ROOT, Configure

TOKENIZER = ROOT / "polyqwen" / "assets" / "tiny_tokenizer"


def memory_of(plan: Plan) -> MemoryPlanned:
    assert plan.memory is not None
    return plan.memory


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model/tuning=lora",),
        ("model/sharing=soft",),
        ("model=tiny_qwen2_5_vl", "model.encoder.freeze_vision=true"),
        ("model=tiny_text", "task=[text_pair]", "model/tuning=last_layers"),
    ],
)
def test_parameters_and_groups_are_those_of_the_model_in_training(
    configure: Configure, overrides: tuple[str, ...]
) -> None:
    cfg = configure(*overrides)
    planned, model = plan_model(cfg), build(cfg).model
    every = list(model.parameters())
    assert sum(part.parameters for part in planned.parts) == sum(p.numel() for p in every)
    trained = sum(p.numel() for p in every if p.requires_grad)
    assert sum(part.trained for part in planned.parts) == trained
    assert planned.weights == 4.0 * sum(p.numel() for p in every)
    groups = model.configure_optimizers()["optimizer"].param_groups
    told = [(g.name, g.tensors, g.parameters, g.lr, g.weight_decay) for g in planned.groups]
    assert told == [
        (
            g["name"],
            len(g["params"]),
            sum(p.numel() for p in g["params"]),
            g["initial_lr"],
            g["weight_decay"],
        )
        for g in groups
    ]


def test_a_frozen_tower_and_adapters_are_told_apart(configure: Configure) -> None:
    cfg = configure("model.encoder.freeze_vision=true", "model/tuning=lora")
    parts = {part.part: part for part in plan_model(cfg).parts}
    assert parts["vision tower"].trained == 0 < parts["vision tower"].parameters
    assert 0 < parts["token embeddings"].trained < 1000  # rows of the prefixes
    assert 0 < parts["language model"].trained < parts["language model"].parameters / 2
    assert parts["projection"].trained == parts["projection"].parameters


def test_a_plan_leaves_the_random_numbers_of_the_run_alone(configure: Configure) -> None:
    cfg = configure()
    before = torch.get_rng_state()
    make_plan(cfg)
    assert torch.equal(torch.get_rng_state(), before)


def test_schedules_are_those_of_the_run(configure: Configure) -> None:
    cfg = configure(
        *("total_steps=100", "phase1_steps=40", "schedule_steps=30"),
        *("optimizer.warmup_fraction=0.1", "optimizer.final_fraction=0.25"),
    )
    lines = {(line.name, line.of): line for line in make_plan(cfg).schedules}
    rise, fall = lines["lr warm-up", "backbone"], lines["lr", "backbone"]
    assert (rise.first, rise.steps, fall.first, fall.steps) == (0, 10, 10, 90)
    peak = cfg.optimizer.backbone_lr
    assert rise.start == pytest.approx(peak / 11) and rise.end == peak
    assert fall.end == pytest.approx(0.25 * peak)
    score = lines["score_weight", "text_pair"]
    assert (score.start, score.end, score.first, score.steps) == (0.5, 3.0, 0, 30)
    boost = lines["boost", "text_pair"]
    assert (boost.start, boost.end, boost.first) == (2.0, 1.0, 40)
    clip = next(line for line in lines.values() if line.name == "gradient clip")
    assert (clip.start, clip.end, clip.steps) == (50.0, 5.0, 30)


def test_weights_are_those_that_the_weighting_starts_from(configure: Configure) -> None:
    cfg = configure("weighting=static", "weighting.static.ocr=3.0", "data.rows_per_task=4")
    first, second = make_plan(cfg).phases
    assert [(t.weight, t.loss_share) for t in first.tasks] == [(1.0, 1.0)]
    weights = {task.task: task.weight for task in second.tasks}
    assert weights["text_pair"] == 2.0 and weights["ocr"] == 3.0  # boosted, and as configured
    assert {t.task: t.loss_share for t in second.tasks}["ocr"] == pytest.approx(3.0 / 7.2)
    assert sum(task.loss_share for task in second.tasks) == pytest.approx(1.0)


def test_rows_of_files_are_counted_and_those_of_tables_read(
    configure: Configure, folder: Path, tmp_path: Path
) -> None:
    cfg = configure(f"data_cache={tmp_path / 'new'}", "data.eval_rows=20")
    fresh = make_plan(cfg)
    assert {(t.train, t.dev, t.test) for t in fresh.tasks} == {(64, 20, 32)}
    assert not (tmp_path / "new" / "tables").exists()  # nothing was prepared
    data = build(cfg).data
    data.prepare_data()
    prepared = make_plan(cfg, data.splits)
    assert prepared.tasks == fresh.tasks
    known = (memory_of(plan).tokens for plan in (fresh, prepared, make_plan(cfg)))
    first, second, third = known
    assert first == pytest.approx(second, rel=0.01) and second == third
    assert not memory_of(fresh).capped


def test_label_tasks_have_the_rows_with_their_label(configure: Configure) -> None:
    tasks = "task=[sentiment,topic,text_unlabelled]"
    cfg = configure("model=tiny_text", tasks, "curriculum=single_phase")
    counted = {task.task: task.train for task in make_plan(cfg).tasks}
    build(cfg).data.prepare_data()
    assert counted == {task.task: task.train for task in make_plan(cfg).tasks}
    assert 0 < counted["topic"] < counted["sentiment"] < 64


def test_generated_data_is_planned_without_being_made(configure: Configure, tmp_path: Path) -> None:
    cfg = configure(f"data_cache={tmp_path / 'none'}", small=False)
    plan = make_plan(cfg)
    assert {(task.train, task.dev, task.test) for task in plan.tasks} == {(10_000, 200, 400)}
    assert not (tmp_path / "none").exists()
    assert memory_of(plan).capped and "not made yet" in plan.notes[0]


def test_trusted_rows_are_not_evaluated(configure: Configure) -> None:
    few = ("task=[text_pair,ocr]", "data.trusted_rows=8", "data.eval_rows=null")
    tasks = make_plan(configure("weighting=validation", *few)).tasks
    assert {(task.train, task.dev) for task in tasks} == {(64, 24)}
    both = make_plan(configure(*few, "data.train_on_trusted=true")).tasks
    assert {(task.train, task.dev) for task in both} == {(72, 24)}


def test_missing_rows_leave_the_rest(configure: Configure) -> None:
    plan = make_plan(configure("data.root=/nowhere"))
    assert {task.train for task in plan.tasks} == {None} and plan.phases and plan.groups
    assert any("rows are not known" in note for note in plan.notes)


def test_a_backbone_that_is_not_here_leaves_the_rest(configure: Configure) -> None:
    plan = make_plan(configure("experiment=vipolyqwen", "trainer.devices=1"))
    assert not plan.parts and not plan.groups and plan.memory is None
    assert any("Qwen2-VL-2B-Instruct is not on this machine" in note for note in plan.notes)
    assert plan.phases and plan.schedules
    assert {task.train for task in plan.tasks} == {64}


def test_a_published_model_is_planned_from_its_configuration_alone(
    configure: Configure, tmp_path: Path
) -> None:
    config = BertConfig(vocab_size=2000, hidden_size=64, num_hidden_layers=3, num_attention_heads=4)
    (tmp_path / "bert").mkdir()
    config.save_pretrained(tmp_path / "bert")  # no weights lie beside it
    cfg = configure(
        *("model=bge_large", "task=[text_pair]", f"model.encoder.name={tmp_path / 'bert'}"),
        *("model.encoder.revision=null", f"model.tokens.tokenizer={TOKENIZER}"),
    )
    plan = make_plan(cfg)
    model = BertModel(config, add_pooling_layer=False)
    expected = sum(p.numel() for p in model.parameters())
    assert sum(part.parameters for part in plan.parts) == pytest.approx(expected, rel=0.1)
    memory = memory_of(plan)
    assert memory.weights > 4 * 64 * 2000 and memory.activations


def test_memory_adds_up(configure: Configure) -> None:
    cfg = configure("model.encoder.freeze_vision=true")
    plan, memory = make_plan(cfg), memory_of(make_plan(cfg))
    parameters = sum(part.parameters for part in plan.parts)
    trained = sum(part.trained for part in plan.parts)
    assert memory.weights == 4.0 * parameters and memory.gradients == 4.0 * trained
    assert memory.optimizer == (STATE - 1) * memory.gradients
    assert memory.casts == memory.gathered == 0.0
    assert memory.total == pytest.approx(
        memory.weights + 3 * memory.gradients + (memory.activations or 0.0)
    )
    half = memory_of(make_plan(configure("trainer.precision=bf16-mixed")))
    assert 0.4 * half.weights > half.casts > 0.3 * half.weights  # linear layers, without tables
    frozen = configure("trainer.precision=bf16-mixed", "model/tuning=lora")
    assert 0 < memory_of(make_plan(frozen)).casts < half.casts
    assert (half.activations or 0.0) < (memory_of(make_plan(configure())).activations or 0.0)


def test_sharding_divides_what_is_kept_and_gathers_it_in_a_step(configure: Configure) -> None:
    whole = memory_of(make_plan(configure()))
    parted = memory_of(
        make_plan(configure("trainer=fsdp", "trainer.devices=4", "trainer.accelerator=cpu"))
    )
    for name in ("weights", "gradients", "optimizer"):
        assert getattr(parted, name) == getattr(whole, name) / 4
    assert parted.gathered == 0.75 * (whole.weights + whole.gradients)


def test_memory_is_that_of_the_largest_micro_batch(configure: Configure) -> None:
    """Not of a mean one, also where each step has one task."""
    overrides = ("large_batch=off", "curriculum=single_phase", "trainer.accumulate_grad_batches=3")
    alone = [
        memory_of(make_plan(configure(*overrides, f"task=[{task}]"))).tokens or 0.0
        for task in ("text_pair", "ocr", "vqa_single", "vqa_multi")
    ]
    turns = memory_of(make_plan(configure(*overrides, "data/sampling=round_robin")))
    assert turns.tokens == pytest.approx(max(alone))
    mixed = memory_of(make_plan(configure(*overrides)))
    assert mixed.tokens == pytest.approx(sum(alone))


@pytest.mark.parametrize("mode", ["off", "checkpoint", "cached"])
def test_activations_follow_the_mode(configure: Configure, mode: str) -> None:
    cfg = configure(f"large_batch={mode}", "data.chunk_tokens=64")
    memory = memory_of(make_plan(cfg))
    kept = kept_bytes(cfg, "32-true", 0)
    assert kept is not None and kept.visual and memory.mode == mode
    tokens = memory.tokens or 0.0
    assert 0 < (memory.activations or 0.0) <= (kept.token + kept.visual) * tokens
    off = memory_of(make_plan(configure("large_batch=off", "data.chunk_tokens=64")))
    assert (memory.activations == off.activations) is (mode == "off")


def test_bytes_of_a_token_are_those_that_a_pass_keeps(configure: Configure) -> None:
    """Of shapes alone as of numbers."""
    cfg = configure("model.encoder.freeze_vision=true")
    earnest, shapes = (kept_bytes(cfg, "32-true", size) for size in (0, 10**12))
    assert earnest == shapes


def test_gpus_that_are_not_here_are_planned_for(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    plan = make_plan(configure("trainer.devices=4", "trainer.accelerator=gpu"))
    assert plan.head["devices"].startswith("4 GPUs")
    assert any("0 of the 4 GPUs" in note for note in plan.notes)
    assert memory_of(plan).available is None and (memory_of(plan).activations or 0.0) > 0
    assert plan.phases[0].rows == 16.0  # 4 rows of each process


def test_a_plan_is_plain_json(configure: Configure) -> None:
    values = plain(make_plan(configure()))
    assert json.loads(json.dumps(values)) == values
    assert values["phases"][0]["tasks"][0]["task"] == "text_pair"
