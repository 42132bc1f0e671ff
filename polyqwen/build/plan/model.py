"""Parameters and optimizer groups of a model that is made of shapes alone."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import nn
from torch.nn import Parameter

from polyqwen.build.instantiate import make_part
from polyqwen.build.network import Network, build_network
from polyqwen.build.plan.types import GroupPlan, PartPlan
from polyqwen.build.run import build_losses, run_steps
from polyqwen.models.loading import shapes_only


class ModelPlan(NamedTuple):
    """What the plan needs to know of a model.

    Attributes:
        parts: what is trained and what is frozen.
        groups: of the optimizer.
        weights: bytes of all parameters.
        trained: bytes of those that are trained.
        copied: trained parameters of linear layers, of which autocast keeps a copy within a step.
        inputs: bytes that a token keeps if layers keep their inputs alone; None if they cannot.
    """

    parts: list[PartPlan]
    groups: list[GroupPlan]
    weights: float
    trained: float
    copied: int
    inputs: float | None


def plan_model(cfg: DictConfig) -> ModelPlan:
    """Builds the run's model of shapes alone, and its optimizer, and counts.

    Raises:
        OSError: a published model's configuration or tokenizer is not on this machine.
        ValueError: as from `build_network`.
    """
    with shapes_only(torch.device("meta")):
        network = build_network(cfg)
        losses = nn.ModuleDict(build_losses(cfg, network.projection.output_size))
        head = nn.ModuleList([network.pooling, network.projection, losses])
        groups = make_optimizer(cfg, network.encoder, head)["optimizer"].param_groups
        parameters = [*network.encoder.parameters(), *head.parameters()]
        layers = network.encoder.recomputable_layers
        return ModelPlan(
            parts=list(_parts(network, losses)),
            groups=[_group(group) for group in groups],
            weights=_bytes(parameters),
            trained=_bytes(p for p in parameters if p.requires_grad),
            copied=_copied([network.encoder, head]),
            inputs=4.0 * network.encoder.hidden_size * layers if layers else None,
        )


def make_optimizer(cfg: DictConfig, encoder: nn.Module, head: nn.Module) -> dict[str, Any]:
    """The run's optimizer and learning-rate schedule over some modules, as the run makes them."""
    make: Any = make_part("optimizer", cfg.optimizer, total_steps=run_steps(cfg))
    made: dict[str, Any] = make(encoder, head)
    return made


def _bytes(parameters: Iterable[Parameter]) -> float:
    return float(sum(p.numel() * p.element_size() for p in parameters))


def _copied(modules: Iterable[nn.Module]) -> int:
    """Trained weights of linear layers: autocast keeps no copies of frozen ones, nor of tables."""
    linear = {m for whole in modules for m in whole.modules() if isinstance(m, nn.Linear)}
    return sum(m.weight.numel() for m in linear if m.weight.requires_grad)


def _parts(network: Network, losses: nn.Module) -> Iterator[PartPlan]:
    """The vision tower, the table of tokens and the rest of the encoder; then the head's parts."""
    named = dict(network.encoder.named_parameters())
    plain = getattr(network.encoder, "encoder", network.encoder)  # inside of adapters
    table = {id(p) for p in plain.text_model.get_input_embeddings().parameters()}
    by_part: dict[str, list[Parameter]] = {}
    for name, parameter in named.items():
        part = "vision tower" if ".visual." in f".{name}" else "language model"
        part = "token embeddings" if id(parameter) in table else part
        by_part.setdefault(part, []).append(parameter)
    for part, module in (
        *(("pooling", network.pooling), ("projection", network.projection)),
        ("losses", losses),
    ):
        by_part[part] = list(module.parameters())
    for part, parameters in by_part.items():
        if parameters:
            trained = sum(p.numel() for p in parameters if p.requires_grad)
            yield PartPlan(part, sum(p.numel() for p in parameters), trained)


def _group(group: Mapping[str, Any]) -> GroupPlan:
    parameters = group["params"]
    peak = group.get("initial_lr", group["lr"])  # the scheduler has set the first step's already
    count = sum(p.numel() for p in parameters)
    return GroupPlan(group["name"], len(parameters), count, float(peak), group["weight_decay"])
