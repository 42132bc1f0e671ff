"""The Lightning module: encoder, head, losses and weighting, and the training step over them."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer

from polyqwen.data.batch import Batch, TaskBatch
from polyqwen.losses.negatives import NegativesFrom
from polyqwen.metrics.split import SplitMetrics, View, ViewMetrics
from polyqwen.metrics.types import PairEmbeddings
from polyqwen.models.encoder import Encoder
from polyqwen.models.memory.large_batch import LargeBatch
from polyqwen.models.projection import PartedProjection
from polyqwen.training.fsdp import shard
from polyqwen.training.nonfinite_batch import GradientMask, forward_is_finite
from polyqwen.training.optimizer import GradientNorm, scaled_learning_rates
from polyqwen.training.step import (
    Features,
    StepLosses,
    StepRecord,
    batch_similarity_gap,
    check_names,
    pairs_of_task,
    project_and_normalize,
)
from polyqwen.training.task_weigher import TaskWeigher
from polyqwen.weighting.base import Weighting


class EmbeddingModule(pl.LightningModule):
    """Encoder, pooling and projection, with the losses and the weighting that train them.

    A training step embeds all inputs of a micro-batch, gives each task's pairs (of all ranks) to
    its loss and returns Σ λ_t · boost_t · L_t. A task may have further losses, candidates of a
    library: they read its pairs, have a λ of their own, and share its boost. Losses and tasks keep
    the weighting's order. λ comes from the weighting by way of a `TaskWeigher`; what else changes
    over time (boost, temperature, loss weights) is set by `ScheduleCallback`.

    Args:
        encoder: `Qwen2VLEncoder`, `TextEncoder` or anything with their interface.
        pooling: (B, L, H), mask -> (B, H).
        projection: (B, H) -> (B, D).
        losses: name -> loss, for exactly what the weighting weighs. A task's own loss has its name.
        weighting: the strategy that sets λ.
        metrics: task -> metrics of its validation and test rows.
        optimizer: called with (encoder, head), returns what `configure_optimizers` returns.
        prefixes: tasks' prefix tokens that were added to the vocabulary, with their ids; kept in
            checkpoints.
        large_batch: what of a step is kept for its backward pass; None keeps all.
        streams: the name of a further loss -> the task whose pairs it reads.
        negatives_from: task -> where its negatives come from, see `Pairs`; "both" for others.
        start_step: absolute optimizer step at which the run begins (the switch for phase 2 alone).

    Attributes:
        boost: task -> factor of its losses beside λ.
        record: what the last micro-batch computed; from the first training step on.
        weigher: feeds the weighting, updates it, gives λ.
        evaluated: embedded pairs by view, only in callbacks' `on_validation_end`, `on_test_end`.
    """

    record: StepRecord

    def __init__(
        self,
        encoder: Encoder,
        pooling: nn.Module,
        projection: nn.Module,
        *,
        losses: Mapping[str, nn.Module],
        weighting: Weighting,
        metrics: Mapping[str, SplitMetrics],
        optimizer: Callable[..., dict[str, Any]],
        start_step: int = 0,
        prefixes: Mapping[str, int] | None = None,
        large_batch: LargeBatch | None = None,
        streams: Mapping[str, str] | None = None,
        negatives_from: Mapping[str, NegativesFrom] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.projection = projection
        self.step_losses = StepLosses(losses, weighting.tasks, streams or {}, negatives_from or {})
        self.losses = self.step_losses.modules
        self.streams, self.tasks = self.step_losses.streams, self.step_losses.tasks
        self.weighting = weighting
        check_names("metrics", metrics, self.tasks)
        self.metrics = nn.ModuleDict({task: metrics[task] for task in self.tasks})
        self.optimizer = optimizer
        self.large_batch = large_batch or LargeBatch("off")
        self.start_step = start_step
        self.prefixes = dict(prefixes or {})
        self.boost = dict.fromkeys(self.tasks, 1.0)
        self.weigher = TaskWeigher(self, weighting, self.step_losses)
        self.gradient_norm = GradientNorm()
        self.gradient_mask = GradientMask()
        self._seen = ViewMetrics({task: self.metric(task) for task in self.tasks})
        self.evaluated: dict[str, PairEmbeddings] = {}
        # published weights come in evaluation mode, without dropout, and Lightning would keep it
        self.train()

    @property
    def step(self) -> int:
        """Absolute optimizer step, the clock of all schedules."""
        return self.start_step + self.global_step

    def metric(self, task: str) -> SplitMetrics:
        """The metrics of one task."""
        return cast(SplitMetrics, self.metrics[task])

    def forward(self, batch: Batch) -> Tensor:
        """Unit-norm embeddings of a batch in fp32, (N, D); `Features.tasks` points at them."""
        return self.features(batch).embeddings

    def features(self, batch: Batch, encoder_graph: bool = True) -> Features:
        """The embeddings of a batch, and what they were made from.

        Args:
            batch: of this rank.
            encoder_graph: False leaves encoder and pooling out of the graph.
        """
        with torch.set_grad_enabled(encoder_graph and torch.is_grad_enabled()):
            pooled = self.large_batch.pooled(self.encoder, self.pooling, batch.chunks, batch.images)
        return self.project(pooled, batch.tasks)

    def project(self, pooled: Tensor, tasks: dict[str, TaskBatch]) -> Features:
        """Embeddings of pooled vectors, (N, H) -> (N, D)."""
        return project_and_normalize(self.projection, pooled, tasks, self.tasks)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Σ λ_t · boost_t · L_t over the tasks present; zero with a graph if there are none.

        With several ranks, each computes the loss of all ranks' rows (see `gather_batch`). Zero
        also, with the same graph, where the forward pass of any rank is not finite: such a
        micro-batch gives no gradient, and nothing is learned from it.
        """
        # embed this rank's inputs, then every loss over the pairs of all ranks
        features = self.features(batch)
        pairs = self.step_losses.pairs(features.embeddings, features.tasks)
        outputs = self.step_losses.outputs(pairs)
        finite = forward_is_finite(features, outputs)
        self.gradient_mask.begin(self.parameters(), finite)
        # statistics go to the weighting before λ is read: it may weigh this very step by them
        factors = self.weigher.weigh(self.step, batch, features, outputs, finite)
        weights = {name: factors[name] * self.boost[self.streams[name]] for name in outputs}
        # the sum starts with zeros that reach every parameter, whichever tasks are absent
        total = features.embeddings.sum() * 0.0
        total = total + self.step_losses.zero_from_unused_parameters(outputs, self.device)
        if isinstance(self.projection, PartedProjection):
            total = total + self.projection.penalty()
        for name, output in outputs.items():
            total = total + weights[name] * output.total
        total = torch.where(finite, total, 0.0)
        self.record = StepRecord(
            total=total.detach(),
            outputs={n: o._replace(total=o.total.detach()) for n, o in outputs.items()},
            weights=weights,
            gaps={
                task: batch_similarity_gap(own)
                for task, own in pairs.items()
                if self.metric(task).paired
            },
            rows={task: len(own.query) for task, own in pairs.items()},
            embeddings=features.embeddings.detach(),
            tasks=features.tasks,
            finite=finite,
        )
        return total

    def on_after_backward(self) -> None:
        """Lets the gradients of other passes through, such as that of the trusted rows."""
        self.gradient_mask.end()

    def trusted_batch(self) -> Batch:
        """This rank's share of the data module's trusted rows, on its device."""
        trainer = cast(Any, self.trainer)  # Lightning sets the data module without declaring it
        batch: Batch = trainer.strategy.batch_to_device(trainer.datamodule.trusted_batch())
        return batch

    def on_fit_start(self) -> None:
        """Gives the weighting what it has to know of the losses and the step."""
        self.weigher.bind(self.trainer.accumulate_grad_batches)
        self.gradient_mask.accumulates = self.trainer.accumulate_grad_batches > 1

    def configure_model(self) -> None:
        """Shards all weights over the processes where there is a device mesh (``trainer=fsdp``)."""
        if self.device_mesh is not None and not isinstance(self, FSDPModule):
            shard(self, self.device_mesh["data_parallel"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the ids of the prefix tokens: which row of the embedding table is which prefix."""
        checkpoint["prefixes"] = self.prefixes

    def configure_optimizers(self) -> Any:
        """Groups for backbone and head; see `polyqwen.training.optimizer`."""
        head = nn.ModuleList([self.pooling, self.projection, self.losses])
        return self.optimizer(self.encoder, head)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Steps with the schedule's learning rates times the weighting's factor of them."""
        factor = self.weighting.learning_rate_factor(self.step)
        with scaled_learning_rates(optimizer, factor):
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by the norm that was measured in this step; without one, as Lightning does."""
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None  # 16-mixed
        by_norm = not scaled and gradient_clip_algorithm != "value"
        if not (by_norm and self.gradient_norm.clip(self.parameters(), gradient_clip_val)):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collects the embedded pairs of one view (a task, or a task under an ablation)."""
        self._evaluate(batch, self._views("val")[dataloader_idx])

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """As `validation_step`, on the test split."""
        self._evaluate(batch, self._views("test")[dataloader_idx])

    def _evaluate(self, batch: Batch, view: View) -> None:
        self._seen.update(view, self.evaluated_pairs(batch, view[0]))

    def _views(self, split: str) -> list[View]:
        return cast(Any, self.trainer).datamodule.splits.views("dev" if split == "val" else split)

    def evaluated_pairs(self, batch: Batch, task: str) -> PairEmbeddings:
        """One task's rows as metrics take them; with logits where its loss has classes."""
        features = self.features(batch)
        pairs = pairs_of_task(features.embeddings, features.tasks[task])
        return self.step_losses.evaluated(task, pairs)

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/<task>/<metric>``, ``space/<task>/<monitor>`` and ``val/score``.

        The score is the mean over tasks of Spearman (scored pairs), macro-F1 (labels) or recall@1
        (the others).
        """
        self._log_views("val")

    def on_test_epoch_end(self) -> None:
        """Logs ``test/<task>/<metric>``; ``chance/…`` is kept for the trainer's caller only."""
        self._log_views("test")

    def on_validation_end(self) -> None:
        """Releases the embeddings, after the callbacks have read them."""
        self.evaluated.clear()

    on_test_end = on_validation_end

    def _log_views(self, split: str) -> None:
        # Lightning's own clock is relative to the run; ours is absolute, so it is handed along.
        values = {"step": float(self.step)} | self._seen.scalars(split, self._views(split))
        chance = self._seen.chance() if split == "test" else {}
        self.evaluated.update(self._seen.take())
        # no sync_dist: computed from all ranks' rows already; Lightning warns when it is read
        warnings.filterwarnings("ignore", message="It is recommended to use .*sync_dist")
        self.log_dict(values)
        self.log_dict(chance, logger=False)  # constants: for the final table, not for charts
