"""Adapters and trained rows put back into the model, or kept in a small file of their own."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from polyqwen.models.tuning.strategies import TrainedRows


def merge(module: nn.Module) -> nn.Module:
    """Replaces every adapted layer by the plain one that computes the same, in place.

        W ← W + (α/r) B A

    and for DoRA with its rows at their learned lengths. Parameters and keys are then those of the
    untuned model. A module without adapters stays as it is.

    Returns:
        The module.
    """
    lora = _lora_layers(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, lora):
                child.merge(safe_merge=True)
                setattr(parent, name, child.get_base_layer())
            elif isinstance(child, TrainedRows):
                setattr(parent, name, child.merged())
            if hasattr(child, "peft_config"):
                del child.peft_config
    return module


def _lora_layers(module: nn.Module) -> Any:
    """The class of adapted layers, or none at all: importing peft takes a second."""
    if not any(".lora_" in name for name, _ in module.named_parameters()):
        return ()
    from peft.tuners.lora import LoraLayer

    return LoraLayer


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """What was trained, by name, without what was frozen."""
    return {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}


def save_trained(module: nn.Module, file: str | Path) -> None:
    """Writes `trained_state` as safetensors: of an adapted model a hundredth of its size."""
    state = {name: value.contiguous() for name, value in trained_state(module).items()}
    save_file(state, str(file))


def load_trained(module: nn.Module, file: str | Path) -> None:
    """Reads what `save_trained` wrote into a model that is built and tuned alike.

    Raises:
        ValueError: a parameter is missing, left over, or of another shape.
    """
    own, given = dict(trained_state(module)), load_file(str(file))
    for name in sorted(own.keys() ^ given.keys()):
        where = "the file has no" if name in own else "the model does not train"
        raise ValueError(f"{file}: {where} {name}; build the model with the run's model and tuning")
    for name, value in given.items():
        if own[name].shape != value.shape:
            raise ValueError(
                f"{file}: {name} is {tuple(value.shape)}, and the model's {tuple(own[name].shape)}"
            )
        own[name].copy_(value)


def as_adapted(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of an untuned model under the names of its tuned twin.

    Adapters start as they were drawn, and rows of new tokens are read from the table. Nothing else
    is filled in: what the state lacks is missing still. A state with adapters or rows, or for a
    module without them, is returned as it is.
    """
    own = module.state_dict()
    rows = {f"{n}.rows": p for n, p in module.named_modules() if isinstance(p, TrainedRows)}
    added = {name for name in own if ".lora_" in name} | rows.keys()
    if not added or added & state.keys():
        return state
    adapted = {name: own[name] for name in added}
    for name, value in state.items():
        layer, _, last = name.rpartition(".")
        tuned = (f"{layer}.base_layer.{last}", f"{layer}.table.{last}")
        adapted[next((n for n in tuned if n in own), name)] = value
    for name, part in rows.items():
        table = adapted.get(f"{name.removesuffix('rows')}table.weight")
        if table is not None and table.shape == part.weight.shape:
            adapted[name] = table[part.places >= 0]
    return adapted
