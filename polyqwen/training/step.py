"""The losses of a training step: which task's pairs each reads, and which of them there are."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polyqwen.data.batch import TaskBatch
from polyqwen.losses.candidates import available
from polyqwen.losses.types import LossOutput, Pairs
from polyqwen.metrics.types import PairEmbeddings
from polyqwen.training.distributed import gather_batch, world_size
from polyqwen.training.pairs import select


class StepLosses:
    """All losses of a run by name; each step has those whose task is there.

    A task's own loss has its name. A task may have further losses, candidates of a library, that
    read its pairs.

    Args:
        losses: name -> loss, for exactly `order`.
        order: names of all losses as the weighting has them.
        further: the name of a further loss -> the task whose pairs it reads.

    Attributes:
        modules: the losses, in that order.
        streams: the name of every loss -> the task whose pairs it reads.
        tasks: those that have a loss of their own name, in the same order.

    Raises:
        ValueError: a loss too few or too many, or one that reads no task's pairs.
    """

    def __init__(
        self, losses: Mapping[str, nn.Module], order: Sequence[str], further: Mapping[str, str]
    ) -> None:
        tasks = tuple(name for name in order if name not in further)
        check_names("losses", losses, order)
        check_names("streams", {*tasks, *further.values()}, tasks)
        self.modules = nn.ModuleDict({name: losses[name] for name in order})
        self.tasks = tasks
        self.streams = {name: further.get(name, name) for name in order}

    def pairs(self, embeddings: Tensor, tasks: dict[str, TaskBatch]) -> dict[str, Pairs]:
        """Every task's pairs of all ranks, in the order of the tasks; a collective.

        Args:
            embeddings: (N, D) of this rank.
            tasks: this rank's pairs of them.
        """
        if world_size() > 1:
            embeddings, tasks = gather_batch(embeddings, tasks, self.tasks)
        return {t: select(embeddings, tasks[t]) for t in self.tasks if t in tasks}

    def outputs(self, pairs: Mapping[str, Pairs]) -> dict[str, LossOutput]:
        """Every loss whose task is present with what it needs; the same ones on all ranks."""
        given = {name: pairs[task] for name, task in self.streams.items() if task in pairs}
        return {
            name: self.modules[name](own)
            for name, own in given.items()
            if available(self.modules[name], own)
        }

    def totals(self, outputs: Mapping[str, LossOutput], device: torch.device) -> Tensor:
        """(T,) values of all losses, NaN where one is absent."""
        blank = torch.full((), torch.nan, device=device)
        return torch.stack([outputs[n].total if n in outputs else blank for n in self.streams])

    def still(self, outputs: Mapping[str, LossOutput], device: torch.device) -> Tensor:
        """Zero, with parameters of the absent losses: the same graph at every step."""
        absent = [loss for name, loss in self.modules.items() if name not in outputs]
        zero = torch.zeros((), device=device)
        return sum((p.sum() * 0.0 for loss in absent for p in loss.parameters()), zero)

    def evaluated(self, task: str, pairs: Pairs) -> PairEmbeddings:
        """One task's pairs as metrics take them; with logits where its loss has classes."""
        loss: Any = self.modules[task]
        return PairEmbeddings(
            pairs.query,
            pairs.document,
            pairs.query_key,
            pairs.document_key,
            pairs.score,
            pairs.label,
            None if pairs.label is None else loss.logits(pairs.query),
        )


def check_names(kind: str, given: Collection[str], wanted: Collection[str]) -> None:
    """Raises `ValueError` where ``model.<kind>`` is not given for what there is."""
    if set(given) != set(wanted):
        raise ValueError(
            f"model.{kind} are given for {sorted(given)}, but there are {sorted(wanted)}"
        )


def check_usable(names: Iterable[str]) -> None:
    """Raises `ValueError` for a task's name that no part of a model can have."""
    taken = nn.ModuleDict()
    for name in names:
        if "." in name or hasattr(taken, name):
            raise ValueError(
                f"a task cannot be called {name!r}, which torch keeps for itself; choose another "
                f"name, such as {name.replace('.', '_')}_task"
            )
