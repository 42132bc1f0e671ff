"""Feeds a weighting strategy from the training steps, updates it when due, answers with λ."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from polyqwen.data.batch import Batch
from polyqwen.losses.types import LossOutput
from polyqwen.training.distributed import to_device_async, world_size
from polyqwen.training.step import Features, StepLosses
from polyqwen.weighting.base import Weighting
from polyqwen.weighting.gram import Gram, Graph, Products
from polyqwen.weighting.weight_update import WeightUpdate


class Embedder(Protocol):
    """What a `TaskWeigher` needs of the model in training; `EmbeddingModule` has it."""

    def features(self, batch: Batch, encoder_graph: bool = True) -> Features:
        """Embeds a batch; without ``encoder_graph`` no gradient reaches behind the pooling."""

    def trusted_batch(self) -> Batch:
        """This rank's share of the trusted rows, on its device."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters."""

    def eval(self) -> Any:
        """Switches dropout off."""

    def train(self) -> Any:
        """Switches dropout on."""


class TaskWeigher:
    """Stands between the training step and a `Weighting`: statistics in, λ out.

    In every micro-batch `weigh` hands losses, rows and chance levels to the weighting. In steps
    that complete a window (`Weighting.due`) it adds what the strategy asks for: pooled features,
    and gradients of the single losses as a Gram matrix. A strategy that weighs a step by its own
    statistics (``lag`` 0) is updated right there, before λ is read; any other one by `after_step`,
    once the optimizer has stepped. All statistics are added up over ranks in an update, so every
    rank must call both methods at the same steps.

    Args:
        model: embeds the trusted rows and gives the parameters that gradients are taken of.
        weighting: the strategy.
        losses: the step's losses, in the weighting's order.
    """

    def __init__(self, model: Embedder, weighting: Weighting, losses: StepLosses) -> None:
        self.model, self.weighting, self.losses = model, weighting, losses
        self._update: WeightUpdate | None = None  # made within the present step
        self._trusted: Batch | None = None  # the same rows all along
        self._batch: Batch | None = None  # of a step whose losses are asked for after it too
        self._watched: Gram | None = None

    def bind(self, accumulate: int) -> None:
        """Gives the weighting what it has to know before the first step.

        Args:
            accumulate: micro-batches in an optimizer step.

        Raises:
            ValueError: a loss without a lower bound, where the strategy divides by losses.
        """
        modules, streams = self.losses.modules, self.losses.streams
        bounds = {name: getattr(loss, "lower_bound", None) for name, loss in modules.items()}
        further = [name for name, task in streams.items() if name != task]
        self.weighting.bind(bounds, accumulate, further)

    def weigh(
        self,
        step: int,
        batch: Batch,
        features: Features,
        outputs: Mapping[str, LossOutput],
        finite: Tensor,
    ) -> dict[str, Tensor]:
        """Observes one micro-batch and returns λ of every loss, present or not; no graph.

        Args:
            step: absolute optimizer step, the same in all of its micro-batches.
            batch: of this rank.
            features: of the batch, with their graph.
            outputs: losses present, over the rows of all ranks.
            finite: () bool, the same on all ranks; a micro-batch that is not finite is counted, and
                left out of all statistics.
        """
        weighting, streams = self.weighting, self.losses.streams
        self._batch = batch if weighting.needs_after else None
        self._observe_losses(features, outputs, finite)
        # one loss alone can be in no conflict, and has nothing to be balanced with
        totals = [outputs[n].total if n in outputs else None for n in streams]
        several = len(outputs) > 1
        if self._watched is not None and several:
            self._watched.add(totals, self.graph(features), finite)
        if weighting.due(step):
            if weighting.needs_features:
                weighting.observe_features(features.pooled, finite)
            if weighting.gram is not None and several:
                weighting.gram.add(totals, self.graph(features), finite)
            if weighting.lag == 0:
                self._update = self.update(step)
        return dict(zip(streams, weighting.weights(step), strict=True))

    def after_step(self, step: int) -> WeightUpdate | None:
        """Ends an optimizer step; returns what was updated in it or now, None without an update.

        Args:
            step: absolute optimizer step, already counted up.
        """
        update, self._update = self._update, None
        self.weighting.end_step()
        if self.weighting.lag and self.weighting.due(step - 1):
            update = self.update(step)
        if self.weighting.needs_after:
            assert self._batch is not None
            self.weighting.observe_after(self.losses_of(self._batch))
            self._batch = None
        return update

    def update(self, step: int) -> WeightUpdate | None:
        """Ends the weighting's window; a collective. Looks at the trusted rows first, if asked."""
        trusted = self._trusted_losses() if self.weighting.needs_trusted else None
        return self.weighting.update(step, trusted)

    def losses_of(self, batch: Batch) -> Tensor:
        """(T,) all losses of a batch over all ranks, without a graph; NaN where one is absent."""
        with torch.no_grad():
            return self.losses.values(self.model.features(batch))

    def graph(self, features: Features) -> Graph:
        """Where gradients of the single losses are taken."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return Graph(features.pooled, features.projected, trained)

    def watch(self, gram: Gram) -> None:
        """Has ``gram`` collect the losses' gradients of the coming micro-batches, for a monitor.

        Whatever the weighting does; a second monitor shares what the first one asked for.
        """
        self._watched = self._watched or gram

    def watched(self) -> Products | None:
        """Ends `watch`: products over all ranks, a collective; None where nothing was added."""
        gram, self._watched = self._watched, None
        if gram is None:
            return None
        if world_size() > 1:
            gram.all_reduce()
        return gram.take()

    def _observe_losses(
        self, features: Features, outputs: Mapping[str, LossOutput], finite: Tensor
    ) -> None:
        """Losses and chance levels are those of all ranks; each rank counts its own rows."""
        device, streams = features.embeddings.device, self.losses.streams
        zero = torch.zeros((), device=device)
        chance = [outputs[n].chance if n in outputs else zero for n in streams]
        tasks = {task: len(own.query) for task, own in features.tasks.items()}
        rows = [tasks.get(t, 0) if n in outputs else 0 for n, t in streams.items()]
        # NaN, as a loss that is not finite itself: counted as skipped
        losses = torch.where(finite, self.losses.totals(outputs, device), torch.nan)
        self.weighting.observe(losses, to_device_async(rows, device), torch.stack(chance))

    def _trusted_losses(self) -> Tensor:
        """(T,) losses of the trusted rows, in evaluation mode, so that nothing random is drawn.

        Strategies that compare gradients get that of the mean loss, without a pass back through the
        encoder where they need none.
        """
        if self._trusted is None:
            self._trusted = self.model.trusted_batch()
        gram = self.weighting.gram
        self.model.eval()
        with torch.set_grad_enabled(gram is not None):
            through_encoder = gram is not None and gram.through_encoder
            features = self.model.features(self._trusted, through_encoder)
            losses = self.losses.values(features)
        self.model.train()
        if gram is not None:
            gram.add_trusted(self.weighting.trusted_objective(losses), self.graph(features))
        return losses.detach()
