"""Every value of a configuration acts: another one changes the run, or is refused with a reason."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from polyqwen.config.check import check
from polyqwen.config.conf import CONF
from polyqwen.config.errors import ConfigError
from polyqwen.config.identity import flat_settings
from polyqwen.config.toplevel import schema_of
from tests.config.observed_run import Observed
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

ELSEWHERE = {  # what shows in whole runs only -> where it is tested
    "name|log_dir": "test_name_and_log_dir_are_those_of_the_runs_folder",
    "init_from|baseline|ablations": "tests/app/test_train.py",
    "resume|ckpt_path": "tests/runs/test_resume_choice.py",
    "process_group_timeout": "tests/training/test_rank_faults.py",  # of several processes
    r"model\.encoder\.compile": "tests/models/test_compile.py",
}
WITHOUT_EFFECT = {  # keys that stay although nothing changes -> why
    r".*\.max_position_embeddings": "Transformers reads it for rope types that depend on length",
    r"trainer\.accelerator": "auto is cpu on a machine without a GPU",
    "metadata": "free notes, kept with the run",
}
OTHER: dict[str, Any] = {  # another legal value, where it is not one more, half, or the opposite
    r".*\.vision_cache|data\.cache|data_cache|data\.source\.root": "{folder}/other",
    r".*(save_dir|dirpath|\.file|run_dir)": "{folder}/other",
    r".*\.attention": "packed",
    r".*\.mrope_section": [8, 4, 4],
    r".*_config\.(hidden_size|embed_dim)": 64,
    r".*\.(num_attention_heads|num_heads)": 2,
    r".*\.num_key_value_heads": 1,
    r".*\.rope_type": "linear",
    r"model\.tokens\.tokenizer": "{folder}",
    r"model\.tokens\.prefix_mode": "text",
    r"model\.tokens\.max_tokens": 4,
    r"model\.\w+\.targets": ["q_proj"],
    r"data\.batch_size": 9,
    r"data\.rows_per_task": 2,
    r"data\.(max_visual_tokens|eval_rows)|tasks\.\w+\.(visual_tokens|batch_size)": 2,
    r"data\.min_visual_tokens": 9,
    r"data\.chunk_tokens": 40,
    r"data\.pad_to_multiple": 64,
    r"data\.resize": "pillow",
    r"data\.bad_rows": "skip",
    r"data\.trusted_rows": 5,
    r"data\.sampling\.signal": ("loss", "uncertainty"),
    r".*\.bounds": [0.9, 1.3],
    r"tasks\.text_pair\.fields\.negatives": "text_b",
    r"tasks\.instruction\.fields\.negatives": "response",
    r"tasks\.\w+\.fields\.negatives": "text",
    r"tasks\.\w+\.fields\.\w+": "lang",
    r"tasks\.\w+\.(prefix|label|folder)": "other",
    r"(tasks|losses|metrics)\.\w+\.classes": ["facility", "others"],
    r"(tasks|losses)\.\w+\.negatives_from": ("given", "batch"),
    r"losses\.topic\.class_weights": {"facility": 2.0},
    r"losses\.sentiment\.class_weights": {"negative": 2.0},
    r"losses\.text_pair\.score_gate": ("weight", "threshold"),
    r"metrics\.text_pair\.min_score": 0.4,
    r"widths\.dims|.*matryoshka.*\.dims": [16, 128],
    r"widths\.weights": [1.0, 2.0, 3.0],
    r"weighting\.normalize": ("sum_to_T", "none"),
    r"weighting\.min_tasks": 5,
    r"weighting\.min_samples": 1000,
    r"weighting\.loss_floor": 1.5,
    r"weighting\.rate_limit": 1.05,
    r"weighting\.collect": "relative",
    r"weighting\.fallback": "calibrated",
    r"weighting\.interval": {"shortest": 4, "longest": 8, "move": 0.1, "settle": 0.02},
    r"weighting\.beta\.mode": "alpha",
    r"weighting\.beta\.tasks": ["ocr"],
    r"curriculum\.foundation": ["ocr"],
    r"curriculum\.starts": {"ocr": 7},
    r"(curriculum\.)?shares_over": ("run", "phase"),
    r"large_batch\.mode": "cached",
    r"large_batch\.memory_gb": 1.0,
    r"optimizer\.betas": [0.8, 0.99],
    r"callbacks\.score_weight\.attribute": "temperature",
    r"callbacks\.\w+\.attribute": "score_weight",
    r"callbacks\.\w+\.shape": ("linear", "cosine"),
    r"callbacks\.temperature\.losses": ["ocr"],
    r"callbacks\.\w+\.losses": [],
    r"callbacks\.(boost|forgetting)\.task": "ocr",
    r"callbacks\.forgetting\.metric": "mrr",
    r"callbacks\.best\.(filename|monitor)": "val/ocr/mrr",
    r"callbacks\.best\.mode": "min",
    r"trainer\.(devices|num_nodes)": 2,
    r"trainer\.strategy": "ddp",
    r"trainer\.precision": "bf16-mixed",
    r"logger\.\w+\.(name|version)": "other",
    "eval_steps": 3,
    "resume_allow": ["data"],
    "library_tasks": ["text_pair"],
}


SMALL = (
    "data.rows_per_task={text_pair: 4, ocr: 3, vqa_single: 3, vqa_multi: 3, instruction: 3}",
    *("data.source.train_rows=96", "data.source.eval_rows=40"),
    *("total_steps=60", "phase1_steps=10", "callbacks.boost.boost_steps=20"),
    "weighting.eval_steps=5",
)
SHARED = ("data.rows_per_task=null", "data.batch_size=13")
LABELS = ("task=[text_pair,topic,sentiment,text_unlabelled,instruction]", "model=tiny_text")
CASES: dict[str, tuple[tuple[str, ...], str]] = {  # overrides, keys to try
    # as it is, but for a first update of the weights that shows within few steps
    "default": (("weighting.calibration_steps=8", "weighting.rate_limit=9.0"), ".*"),
    "shares": (SHARED, r"tasks\.\w+\.share|data\.(batch_size|rows_per_task)|.*shares_over"),
    "paper": (
        ("experiment=vipolyqwen", "model=tiny", "data=generated", "trainer.devices=1", *SHARED),
        r"(curriculum|optimizer|trainer|losses)\..*|\w+_\w+|name|tasks\.\w+\.share",
    ),
    "labels": (
        (*LABELS, *SHARED, "curriculum=single_phase"),
        r"(tasks|losses|metrics)\..*|curriculum\..*",
    ),
    "tied": (("eval=tied", "eval_steps=5"), r"eval_steps|validate_every"),
    "library": (("library=embedding",), r"library\.\w+\.loss\..*"),
    "widths": (("widths=matryoshka",), "widths.*"),
    "threshold": (("losses.text_pair.score_gate=threshold",), r"losses\.text_pair\..*"),
    "staged": (("curriculum=staged", "curriculum.starts={ocr: 10}"), r"curriculum\..*"),
    "phase1": (("curriculum=phase1",), r"curriculum\..*"),
    "phase2": (("curriculum=phase2",), r"curriculum\..*"),
    "by_size": ((*SHARED, "data/sampling=by_size"), r"data\.sampling\..*"),
    "by_loss": ((*SHARED, "data/sampling=by_loss"), r"data\.sampling\..*"),
    "lora": (("model/tuning=lora",), r"model\.tuning\..*"),
    "last_layers": (("model/tuning=last_layers",), r"model\.tuning\..*"),
    "adapters": (("model/sharing=adapters",), r"model\.sharing\..*"),
    "soft": (("model/sharing=soft",), r"model\.sharing\..*"),
    "pooling": (("model/pooling=attention",), r"model\.pooling\..*"),
    "wide_projection": (("model/projection=residual",), r"model\.projection\..*"),
}


def other_value(key: str, value: Any, folder: Path) -> Any:
    """Another legal value of a key."""
    for pattern, other in OTHER.items():
        if re.fullmatch(pattern, key):
            other = next(o for o in other if o != value) if isinstance(other, tuple) else other
            return other.format(folder=folder) if isinstance(other, str) else other
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    assert isinstance(value, float), f"say in OTHER what else {key}={value!r} may be"
    return value / 2 if value else 0.5


def tried(key: str, value: Any) -> bool:
    """Whether a key is no part of a node's name and nothing that another test looks at."""
    excused = any(re.fullmatch(pattern, key) for pattern in (*ELSEWHERE, *WITHOUT_EFFECT))
    return key.rpartition(".")[2] not in ("_target_", "_partial_") and value != {} and not excused


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.mark.parametrize("case", CASES)
def test_every_key_acts_or_is_refused(case: str, base: Path) -> None:
    overrides, keys = CASES[case]
    own = [f"run_dir={base}/run", f"data_cache={base}/cache"]
    given = [*SMALL, *own, *overrides]
    schema = schema_of(CONF, "train", [path.stem for path in (CONF / "task").glob("*.yaml")])
    cfg = compose("train", overrides=given)
    values = check(cfg, schema)
    observed, dead, found = Observed(values), [], 0
    for key, value in flat_settings(cfg).items():
        if not re.fullmatch(keys, key) or not tried(key, value):
            continue
        found += 1
        changed = copy.deepcopy(cfg)
        OmegaConf.update(changed, key, other_value(key, value, base), merge=False)
        try:
            checked = check(changed, schema, [f"{key}=1"])
        except ConfigError as error:
            assert "\n" not in str(error)
            continue
        if observed.changed_by(checked) is None:
            dead.append(key)
    assert found and not dead, f"no effect: {', '.join(dead)}"


def test_name_and_log_dir_are_those_of_the_runs_folder() -> None:
    cfg = compose("train", ["name=other", "log_dir=/elsewhere"], return_hydra_config=True)
    assert str(cfg.hydra.run.dir).startswith("/elsewhere/other/")


def test_keys_that_are_tested_elsewhere_are() -> None:
    for keys, file in ELSEWHERE.items():
        if file.endswith(".py"):
            text = (ROOT / file).read_text(encoding="utf-8")
            assert all(key.rpartition(".")[2] in text for key in keys.split("|")), (keys, file)
