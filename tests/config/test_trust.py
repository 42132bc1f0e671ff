"""A stranger's configuration, checkpoint or model: one clear line, and nothing of theirs runs."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from polyqwen.config.check import check_texts
from polyqwen.config.errors import ConfigError
from polyqwen.config.hub_revisions import warn_of_unpinned
from polyqwen.config.hydra_guard import CALLBACKS, check_hydra
from polyqwen.config.nodes import allowed_signature, check_nodes
from polyqwen.inference.load import run_parts
from tests.config.test_bad_input import arguments, assert_refused, forked
from tests.conftest import ROOT, Configure

EVIL = {"_target_": "os.system", "command": "touch MARK"}

# what stands in an experiment file, and the words of the refusal; MARK is a file that would appear
FILES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "plain": ({"losses": {"ocr": EVIL}}, ("losses.ocr._target_", "os.system is not allowed")),
    "in a list": ({"tasks": {"ocr": {"prefix": [EVIL]}}}, ("tasks.ocr.prefix",)),
    "in a list of lists": ({"optimizer": {"betas": [[[EVIL]]]}}, ("optimizer.betas",)),
    "in a free note": (
        {"metadata": {"evil": EVIL}, "losses": {"ocr": "${metadata.evil}"}},
        ("losses.ocr._target_", "os.system"),
    ),
    "resolved later": (
        {"metadata": {"evil": EVIL}, "callbacks": {"step_log": {"every": "\\${metadata.evil}"}}},
        ("callbacks.step_log.every", "${metadata.evil}"),
    ),
    "resolved later, in a note": ({"metadata": {"a": "\\${oc.env:HOME}"}}, ("metadata.a", "${")),
    "target by interpolation": (
        {"metadata": {"t": "os.system"}, "losses": {"ocr": {"_target_": "${metadata.t}"}}},
        ("losses.ocr._target_", "os.system"),
    ),
    "partial": ({"callbacks": {"x": {**EVIL, "_partial_": True}}}, ("os.system",)),
    "positional": (
        {"callbacks": {"progress": {"_args_": ["x"]}}},
        ("callbacks.progress._args_", "unknown key"),
    ),
    "conversion": ({"callbacks": {"progress": {"_convert_": "all"}}}, ("_convert_",)),
    "not recursive": ({"callbacks": {"progress": {"_recursive_": False}}}, ("_recursive_",)),
    "callback of Hydra": ({"hydra": {"callbacks": {"x": EVIL}}}, ("hydra.callbacks",)),
    "callbacks of Hydra, elsewhere": (
        {"metadata": {"c": {"x": EVIL}}, "hydra": {"callbacks": "${metadata.c}"}},
        ("hydra.callbacks",),
    ),
    "launcher": (
        {"hydra": {"launcher": {"_target_": "os.system"}}},
        ("hydra.launcher", "os.system"),
    ),
    "sweeper": ({"hydra": {"sweeper": {"_target_": "subprocess.run"}}}, ("hydra.sweeper",)),
    "formatter": (
        {"hydra": {"job_logging": {"formatters": {"x": {"()": "os.system"}}}}},
        ("hydra.job_logging.formatters.x.()",),
    ),
    "handler": (
        {"hydra": {"hydra_logging": {"handlers": {"x": {"class": "subprocess.Popen"}}}}},
        ("hydra.hydra_logging.handlers.x.class", "subprocess.Popen"),
    ),
    "stream": (
        {"hydra": {"job_logging": {"handlers": {"console": {"stream": "ext://os.system"}}}}},
        ("hydra.job_logging.handlers.console.stream", "ext://os.system"),
    ),
    "environment": (
        {"hydra": {"job": {"env_set": {"PYTHONPATH": "/tmp"}}}},
        ("hydra.job.env_set.PYTHONPATH",),
    ),
    "secret": ({"metadata": {"a": "${oc.env:HF_TOKEN}"}}, ("HF_TOKEN", "secret")),
    "no resolver": ({"metadata": {"a": "${eval:1}"}}, ("metadata.a", "eval")),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_strangers_experiment(kind: str, tmp_path: Path) -> None:
    content, words = FILES[kind]
    mark = tmp_path / "mark"
    text = yaml.safe_dump(content).replace("MARK", str(mark))
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "theirs.yaml").write_text(f"# @package _global_\n{text}")
    own = [f"--config-dir={tmp_path}", "experiment=theirs", f"hydra.run.dir={tmp_path}/run"]
    assert_refused(forked("train.py", [*own, f"data_cache={tmp_path}"], tmp_path), words, code=2)
    assert not mark.exists()


TARGETS = [
    "os.system",
    "builtins.eval",
    "subprocess.run",
    "torch.load",
    "torch.hub.load",
    "polyqwen.app.launch.subprocess.run",
    "polyqwen.training.module.torch.load",
    "polyqwen.training.module.EmbeddingModule.load_from_checkpoint",
    "polyqwen.app.launch.launch",
    "polyqwen.runs.weights.load_weights",
    "polyqwen.data.generated.generate",
    "polyqwen.data.rows.sources.Path",
    "polyqwen.training.callbacks.alarms.EmbeddingModule",
    "polyqwen.training.callbacks.alarms.Alarms.load_state_dict",
    "polyqwen.training.callbacks.alarms.log",
    "polyqwen.losses.checks.math.floor",
    "lightning.pytorch.LightningModule.load_from_checkpoint",
    "lightning.pytorch.utilities.rank_zero.rank_zero_info",
    "lightning.pytorch.cli.LightningCLI",
    "lightning.pytorch.loggers.WandbLogger",
    "lightning.pytorch.trainer.trainer.os.system",
    "lightning.pytorch.plugins.io.TorchCheckpointIO",
    "lightning.fabric.plugins.io.torch_io.torch.load",
    "lightning.pytorch.callbacks.LambdaCallback",
    "datetime.datetime",
    "polyqwen",
    "polyqwen.losses",
    "polyqwen..losses",
    "",
]


@pytest.mark.parametrize("hidden", [EVIL, [EVIL], [[EVIL]], {"x": [{"y": [[EVIL]]}]}], ids=str)
def test_targets_are_found_wherever_they_are(hidden: Any) -> None:
    with pytest.raises(ConfigError, match=r"^callbacks\.free.*os\.system is not allowed"):
        check_nodes({"callbacks": {"free": hidden}})


@pytest.mark.parametrize("target", TARGETS)
def test_targets_that_may_not_be_named(target: str) -> None:
    with pytest.raises(ConfigError, match="_target_"):
        check_nodes({"losses": {"ocr": {"_target_": target}}})


def test_every_target_of_the_shipped_files_is_allowed() -> None:
    found = set()

    def visit(node: Any) -> None:
        if isinstance(node, Mapping):
            if isinstance(node.get("_target_"), str):
                found.add(node["_target_"])
            for inner in node.values():
                visit(inner)
        elif isinstance(node, list):
            for inner in node:
                visit(inner)

    for file in (ROOT / "conf").rglob("*.yaml"):
        visit(yaml.safe_load(file.read_text()))
    assert len(found) > 60
    for target in found - {node["_target_"] for node in CALLBACKS.values()}:  # see `check_hydra`
        allowed_signature(target)


def test_what_hydra_sets_by_itself_is_allowed(configure: Configure) -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    for name in ("train", "evaluate"):
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose(name, return_hydra_config=True)
        node = OmegaConf.to_container(cfg.hydra, resolve=False)
        assert isinstance(node, dict) and node["job_logging"]["handlers"]
        check_hydra({str(key): value for key, value in node.items()})


SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
BASIC = {
    "launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"},
    "sweeper": {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"},
    "sweep": {"dir": "logs/x"},
}
SLURM = {"_target_": f"{SUBMITIT}.SlurmLauncher", "partition": "gpu", "setup": None}
TPE = {"_target_": OPTUNA, "sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 1}}


@pytest.mark.parametrize(
    "node",
    [
        {"launcher": SLURM},
        {"launcher": {"_target_": f"{SUBMITIT}.LocalLauncher", "timeout_min": 5}},
        {"sweeper": {**TPE, "storage": "sqlite:///study.db", "custom_search_space": None}},
    ],
)
def test_known_launchers_and_sweepers_may_be_used(node: dict[str, Any]) -> None:
    check_hydra({**BASIC, **node})


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"launcher": {**SLURM, "setup": ["touch x"]}}, r"hydra\.launcher\.setup"),
        ({"launcher": {**SLURM, "additional_parameters": {"wrap": "x"}}}, "additional_parameters"),
        ({"launcher": {**SLURM, "comment": "a\ntouch x"}}, r"launcher\.comment.*one line"),
        ({"launcher": SLURM, "job": {"name": "a\ntouch x"}}, r"hydra\.job\.name.*one line"),
        ({"launcher": SLURM, "sweep": {"dir": "a/${stamp:}"}}, r"hydra\.sweep\.dir=logs/NAME"),
        ({"launcher": {**SLURM, "x": EVIL}}, r"launcher\.x\._target_"),
        ({"callbacks": {"sweep_page": EVIL}}, r"hydra\.callbacks"),
        ({"callbacks": {**CALLBACKS, "x": EVIL}}, r"hydra\.callbacks"),
        ({"callbacks": {"sweep_page": {**CALLBACKS["sweep_page"], "x": 1}}}, r"hydra\.callbacks"),
        ({"sweeper": {**TPE, "custom_search_space": "os.system"}}, "custom_search_space"),
        ({"sweeper": {**TPE, "storage": "mysql://host/x"}}, r"sweeper\.storage.*sqlite"),
        ({"sweeper": {**TPE, "sampler": EVIL}}, r"sweeper\.sampler\._target_"),
        ({"sweeper": {**BASIC["sweeper"], "params": EVIL}}, r"sweeper\.params\._target_"),
    ],
)
def test_but_nothing_of_theirs_that_runs_or_opens(node: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_hydra({**BASIC, **node})


@pytest.mark.parametrize("address", ["http://x/a.ckpt", "https://x/a", "s3://b/a", "file:///a"])
@pytest.mark.parametrize("key", ["init_from", "ckpt_path", "run_dir", "data_cache", "log_dir"])
def test_addresses_are_not_opened(address: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: .*nothing is opened over the network"):
        check_texts({"metadata": {"source": "https://fine"}, key: address})


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("key", ["init_from", "ckpt_path"])
def test_a_strangers_checkpoint(key: str, folder: Path, tmp_path: Path) -> None:
    path, mark = tmp_path / "theirs.ckpt", tmp_path / "mark"
    torch.save({"state_dict": {}, "callbacks": Payload(mark)}, path)
    ended = forked("train.py", arguments(folder, tmp_path, f"{key}={path}"), tmp_path)
    assert not mark.exists()
    assert_refused(ended, ())
    torch.load(path, weights_only=False)
    assert mark.exists()  # the payload works where it is let


def test_what_a_checkpoint_would_have_built(folder: Path, tmp_path: Path) -> None:
    """Lightning's hyperparameters may name a function to build a model with."""
    run = arguments(folder, tmp_path)
    assert forked("train.py", run, tmp_path).code == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    mark = tmp_path / "mark"
    evil = {"_instantiator": "os.mkdir", "_class_path": "os.mkdir", "path": str(mark)}
    checkpoint |= {"hyper_parameters": evil, "datamodule_hyper_parameters": evil}
    path = tmp_path / "theirs.ckpt"
    torch.save(checkpoint, path)
    for key in ("init_from", "ckpt_path"):
        forked("train.py", [*run, f"{key}={path}", "curriculum.total_steps=3"], tmp_path)
        assert not mark.exists()


def test_a_strangers_run_is_not_evaluated(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    refused = (
        ("model: {encoder: {_target_: os.mkdir, path: MARK}}", ("os.mkdir is not allowed",)),
        ("metadata: {e: {_target_: os.mkdir}}\nmodel: ${metadata.e}", ("os.mkdir",)),
        ("model: !!python/object/apply:os.mkdir [MARK]", ("YAML", "python/object")),
        ("data_cache: https://x", ("data_cache", "network")),
        ("model: {encoder: {attention: them/kernel}}", ("model.encoder.attention", "them/kernel")),
        ("model: {encoder: {config: {auto_map: x}}}", ("auto_map", "code")),
    )
    for evil, words in refused:
        (tmp_path / "config.yaml").write_text(evil.replace("MARK", str(mark)) + "\n")
        assert_refused(forked("evaluate.py", [f"run_dir={tmp_path}"], tmp_path), words)
        with pytest.raises((ValueError, yaml.YAMLError)):
            run_parts(tmp_path)  # as embed and export do
        assert not mark.exists()


def test_code_that_comes_with_a_model(folder: Path, tmp_path: Path) -> None:
    theirs, mark = tmp_path / "theirs", tmp_path / "mark"
    theirs.mkdir()
    source = f"import os\nos.mkdir({str(mark)!r})\nclass C: pass\n"
    (theirs / "evil.py").write_text(source)
    kinds = {"AutoConfig": "evil.C", "AutoModel": "evil.C", "AutoTokenizer": ["evil.C", None]}
    (theirs / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": kinds}))
    (theirs / "tokenizer_config.json").write_text(json.dumps({"auto_map": kinds}))
    encoder = ["model=bge_large", f"model.encoder.name={theirs}", "model.encoder.revision=null"]
    tokens = [f"model.tokens.tokenizer={ROOT / 'polyqwen/assets/tiny_tokenizer'}"]
    text = ["task=[text_pair]", "curriculum=single_phase", "callbacks.boost=null"]
    for more in (encoder, [*encoder, *tokens]):
        run = arguments(folder, tmp_path, *more, *text)
        assert_refused(forked("train.py", run, tmp_path), ())
        assert not mark.exists()


def test_pickles_are_no_configurations(tmp_path: Path) -> None:
    ended = forked("train.py", ["--experimental-rerun", "x.pickle"], tmp_path)
    assert_refused(ended, ("--experimental-rerun",), code=2)


def test_unpinned_names_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pinned = {"name": "a/b", "revision": "0" * 40}
    warn_of_unpinned({"model": {"encoder": pinned, "tokens": {**pinned, "tokenizer": "a/b"}}})
    warn_of_unpinned({"model": {"encoder": {"name": str(tmp_path), "revision": None}}})
    assert not caplog.records
    datasets = {"ocr": {"name": "c/d"}, "vqa": {"name": "e/f", "revision": "main"}}
    warn_of_unpinned({"data": {"source": {"datasets": datasets}}})
    first, second = (record.message for record in caplog.records)
    assert "c/d is unpinned" in first and "data.source.datasets.ocr.revision" in first
    assert "e/f is unpinned (revision main)" in second


def test_shipped_hub_names_are_pinned(configure: Configure) -> None:
    from polyqwen.config.check import resolved
    from polyqwen.config.hub_revisions import COMMIT, hub_names

    names = {}
    for model in ("qwen2_vl_2b", "bge_large"):
        names |= {
            n: revision for _, n, revision in hub_names(resolved(configure(f"model={model}")))
        }
    assert set(names) == {"Qwen/Qwen2-VL-2B-Instruct", "BAAI/bge-large-en-v1.5"}
    assert all(COMMIT.fullmatch(revision) for revision in names.values())


def test_no_remote_code_is_ever_asked_for() -> None:
    """`polyqwen.export` only writes of it, for users of other libraries."""
    files = [p for p in (ROOT / "polyqwen").rglob("*.py") if "export" not in p.parts]
    sources = [p.read_text() for p in files]
    assert sum("trust_remote_code=False" in text for text in sources) >= 2
    assert not any("trust_remote_code=True" in text for text in sources)
