"""Insides of other packages that polyqwen relies on: an upgrade fails here, not in a run."""

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tests.conftest import ROOT


def trainer() -> Any:
    return pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def hydra_loader() -> bool:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    known = {"config_name", "overrides", "run_mode"}
    return known <= parameters(ConfigLoaderImpl.load_configuration)


def hydra_overrides() -> bool:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    return list(inspect.signature(ConfigLoaderImpl._apply_overrides_to_config).parameters) == [
        "overrides",
        "cfg",
    ]


def hydra_arguments() -> bool:
    from hydra._internal.utils import get_args_parser

    given = get_args_parser().parse_args(["--config-name=x", "a=1"])
    return given.config_name == "x" and given.overrides == ["a=1"] and not given.experimental_rerun


def hydra_main_calls_the_loader() -> bool:
    import hydra._internal.hydra as source

    return "self.config_loader.load_configuration" in inspect.getsource(source)


def hydra_plugin_names() -> bool:
    from hydra.utils import get_class

    from polyqwen.config.hydra_guard import CORE, PLUGINS

    names = [name for plugins in PLUGINS.values() for name in plugins if name.startswith(CORE)]
    return len(names) == 2 and all(isinstance(get_class(name), type) for name in names)


def hydra_search_path() -> bool:
    from hydra._internal.utils import create_config_search_path

    providers = [element.provider for element in create_config_search_path("/x").get_path()]
    return providers == ["hydra", "main", "schema"]


def signals() -> bool:
    return callable(trainer()._signal_connector.register_signal_handlers)


def progress() -> bool:
    loop = trainer().fit_loop.epoch_loop
    state = loop.val_loop.batch_progress.state_dict()
    loop.val_loop.batch_progress.load_state_dict(state)
    return loop.batch_progress.current.ready == 0 and isinstance(loop.val_loop.restarting, bool)


def key_value_store() -> bool:
    from torch.distributed import distributed_c10d

    return callable(distributed_c10d._get_default_store)


def tree_map() -> bool:
    from torch.utils._pytree import tree_map

    return tree_map(lambda x: x + 1, {"a": (1, 2)}) == {"a": (2, 3)}


def identity_of_a_storage() -> bool:
    meta = torch.zeros(4, device="meta")
    other = torch.zeros(4, device="meta")
    own = meta.untyped_storage()._cdata
    return own == meta[1:].untyped_storage()._cdata != other.untyped_storage()._cdata


def fake_tensors() -> bool:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.nn.Linear(2, 3)(torch.zeros(4, 2)).shape == (4, 3)


def model_of_a_configuration() -> bool:
    from transformers import BertConfig, BertModel

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
    return isinstance(BertModel._from_config(BertConfig(**small)), BertModel)


def version_of_a_tensor() -> bool:
    tensor = torch.zeros(1)
    before = tensor._version
    tensor.add_(1)
    return tensor._version == before + 1


def file_writer() -> bool:
    from torch.utils.tensorboard import SummaryWriter

    return "get_logdir" in dir(SummaryWriter) and callable(SummaryWriter._get_file_writer)


def dataset_indices_and_fingerprint() -> bool:
    from datasets import Dataset

    table = Dataset.from_dict({"a": [1, 2, 3]})
    chosen = table.select([2, 0])
    return (table._indices, isinstance(table._fingerprint, str)) == (None, True) and (
        chosen._indices is not None and chosen._fingerprint != table._fingerprint
    )


def attention_of_a_model() -> bool:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    return BertModel(config).config._attn_implementation == "sdpa"


def checkpointed_layers() -> bool:
    from transformers.modeling_layers import GradientCheckpointingLayer

    source = inspect.getsource(GradientCheckpointingLayer)
    return (
        "self._gradient_checkpointing_func(" in source and "self.gradient_checkpointing" in source
    )


def module_state() -> bool:
    wanted = {"state_dict", "prefix"} <= parameters(torch.nn.Module._load_from_state_dict)
    return wanted and parameters(torch.nn.Module._apply) == {"self", "fn", "recurse"}


RELIED_ON: dict[str, Callable[[], bool]] = {
    "hydra._internal.config_loader_impl.ConfigLoaderImpl.load_configuration": hydra_loader,
    "hydra: ConfigLoaderImpl._apply_overrides_to_config": hydra_overrides,
    "hydra._internal.hydra.Hydra composes by config_loader": hydra_main_calls_the_loader,
    "hydra._internal.utils.get_args_parser": hydra_arguments,
    "hydra._internal.core_plugins": hydra_plugin_names,
    "hydra's search path: hydra, main, schema": hydra_search_path,
    "lightning: trainer._signal_connector": signals,
    "lightning: fit_loop.epoch_loop.{batch_progress,val_loop}": progress,
    "torch.distributed.distributed_c10d._get_default_store": key_value_store,
    "torch.utils._pytree.tree_map": tree_map,
    "torch: tensor._version": version_of_a_tensor,
    "torch._subclasses.fake_tensor.FakeTensorMode": fake_tensors,
    "torch: storage._cdata": identity_of_a_storage,
    "torch: nn.Module.{_apply,_load_from_state_dict}": module_state,
    "tensorboard: writer._get_file_writer": file_writer,
    "datasets: table.{_indices,_fingerprint}": dataset_indices_and_fingerprint,
    "transformers: PreTrainedModel._from_config": model_of_a_configuration,
    "transformers: config._attn_implementation": attention_of_a_model,
    "transformers: layer._gradient_checkpointing_func": checkpointed_layers,
}


@pytest.mark.parametrize("name", RELIED_ON)
def test_it_is_still_there(name: str) -> None:
    assert RELIED_ON[name]()


def private_names() -> Iterator[tuple[str, str]]:
    """(name, file) of attributes and imports with an underscore that the package does not have."""
    trees = {p: ast.parse(p.read_text(encoding="utf-8")) for p in (ROOT / "polyqwen").rglob("*.py")}
    nodes = [(node, path) for path, tree in trees.items() for node in ast.walk(tree)]
    ours = {n.name for n, _ in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    ours |= {
        n.attr
        for n, _ in nodes
        if isinstance(n, ast.Attribute)
        and isinstance(n.ctx, ast.Store)
        and ast.unparse(n.value) == "self"
    }
    ours |= {"_replace", "_asdict", "_fields", "_make", "_exit"}  # of NamedTuples and of os
    for node, path in nodes:
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("polyqwen"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        else:
            names = []
        for name in names:
            if name.startswith("_") and not name.startswith("__") and name not in ours:
                yield name, str(path.relative_to(ROOT))


def test_nothing_else_is_relied_on() -> None:
    listed = " ".join(RELIED_ON)
    found = dict(private_names())
    assert {"_internal", "_signal_connector", "_get_default_store", "_indices"} <= set(found)
    assert not {name: path for name, path in found.items() if name not in listed}
