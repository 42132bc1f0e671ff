"""The model and its training step: embed every content once, losses per task, weigh, sum."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer

from polyqwen.data.batch import Batch, TaskBatch
from polyqwen.losses.types import LossOutput
from polyqwen.metrics.split import SplitMetrics
from polyqwen.metrics.types import PairEmbeddings
from polyqwen.metrics.views import View, ViewMetrics
from polyqwen.models.encoder import Encoder
from polyqwen.models.memory.large_batch import LargeBatch
from polyqwen.models.projection import PartedProjection
from polyqwen.training.devices import sent
from polyqwen.training.distributed import shard
from polyqwen.training.features import Features, embedded
from polyqwen.training.gradient_norm import GradientNorm
from polyqwen.training.pairs import select, similarity_gap
from polyqwen.training.step import StepLosses, check_names
from polyqwen.training.step_record import StepRecord
from polyqwen.weighting.base import Weighting
from polyqwen.weighting.gram import Gram, Graph
from polyqwen.weighting.weight_update import WeightUpdate


class EmbeddingModule(pl.LightningModule):
    """Encoder, pooling and projection, with the losses and the weighting that train them.

    A training step embeds all contents of a micro-batch, gives each task's pairs (of all ranks) to
    its loss and returns Σ λ_t · boost_t · L_t. A task may have further losses, candidates of a
    library: they read its pairs, have a λ of their own, and share its boost. Losses and tasks keep
    the weighting's order. What changes over time (λ, boost, temperature, loss weights) is set from
    outside by callbacks.

    Args:
        encoder: `Qwen2VLEncoder`, `TextEncoder` or anything with their interface.
        pooling: (B, L, H), mask -> (B, H).
        projection: (B, H) -> (B, D).
        losses: name -> loss, for exactly what the weighting weighs. A task's own loss has its name.
        weighting: sets λ.
        metrics: task -> metrics of its validation and test rows.
        optimizer: called with (encoder, head), returns what `configure_optimizers` returns.
        prefixes: tokens of their own that tasks' prefixes are, with their ids; kept in checkpoints.
        large_batch: what of a step is kept for its backward pass; None keeps all.
        streams: the name of a further loss -> the task whose pairs it reads.
        start_step: absolute optimizer step at which the run begins (the switch for phase 2 alone).
    """

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
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.projection = projection
        self.step_losses = StepLosses(losses, weighting.tasks, streams or {})
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
        self.record: StepRecord | None = None
        self.weight_update: WeightUpdate | None = None  # made within the last training step
        self._trusted: Batch | None = None
        self.watched: Gram | None = None  # a callback's; gets the gradients of the next steps too
        self.gradient_norm = GradientNorm()
        self._seen = ViewMetrics({task: self.metric(task) for task in self.tasks})
        self.evaluated: dict[str, PairEmbeddings] = {}  # by view, in callbacks' `on_…_end` only
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

    def features(self, batch: Batch) -> Features:
        """The embeddings, and what they were made from."""
        return self._embedded(self._pooled(batch), batch.tasks)

    def _embedded(self, pooled: Tensor, tasks: dict[str, TaskBatch]) -> Features:
        return embedded(self.projection, pooled, tasks, self.tasks)

    def _pooled(self, batch: Batch) -> Tensor:
        return self.large_batch.pooled(self.encoder, self.pooling, batch.chunks, batch.images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Σ λ_t · boost_t · L_t over the tasks present; zero with a graph if there are none.

        With several ranks, each computes the loss of all ranks' rows (see `gather_batch`).
        """
        features = self.features(batch)
        pairs = self.step_losses.pairs(features.embeddings, features.tasks)
        outputs = self.step_losses.outputs(pairs)
        self._inform_weighting(outputs, batch, features)
        factors = dict(zip(self.streams, self.weighting.weights(self.step), strict=True))
        weights = {name: factors[name] * self.boost[self.streams[name]] for name in outputs}
        total = features.embeddings.sum() * 0.0 + self.step_losses.still(outputs, self.device)
        if isinstance(self.projection, PartedProjection):
            total = total + self.projection.penalty()
        for name, output in outputs.items():
            total = total + weights[name] * output.total
        self.record = StepRecord(
            total=total.detach(),
            outputs={n: o._replace(total=o.total.detach()) for n, o in outputs.items()},
            weights=weights,
            gaps={
                task: similarity_gap(own) for task, own in pairs.items() if self.metric(task).paired
            },
            rows={task: len(own.query) for task, own in pairs.items()},
            embeddings=features.embeddings.detach(),
            tasks=features.tasks,
        )
        return total

    def losses_of(self, batch: Batch) -> Tensor:
        """(T,) all losses of a batch over all ranks, without a graph; NaN where one is absent."""
        with torch.no_grad():
            return self._losses_of(self.features(batch))

    def _losses_of(self, features: Features) -> Tensor:
        pairs = self.step_losses.pairs(features.embeddings, features.tasks)
        return self.step_losses.totals(self.step_losses.outputs(pairs), self.device)

    def update_weighting(self) -> WeightUpdate | None:
        """Ends the weighting's window; trusted rows are looked at now, if they are asked for."""
        trusted = self._look_at_trusted() if self.weighting.needs_trusted else None
        return self.weighting.update(self.step, trusted)

    def _look_at_trusted(self) -> Tensor:
        """(T,) losses of the trusted rows; as in evaluation, so nothing random is drawn.

        Strategies that compare gradients get that of the mean loss, without a pass back through the
        encoder where they need none.
        """
        if self._trusted is None:
            batch = cast(Any, self.trainer).datamodule.trusted_batch()
            self._trusted = self.trainer.strategy.batch_to_device(batch)
        self.eval()
        gram = self.weighting.gram
        with torch.set_grad_enabled(gram is not None and gram.through_encoder):
            pooled = self._pooled(self._trusted)
        with torch.set_grad_enabled(gram is not None):
            features = self._embedded(pooled, self._trusted.tasks)
            losses = self._losses_of(features)
        self.train()
        if gram is not None:
            aim = self.weighting.trusted_objective(losses)
            gram.add_trusted(aim, self._graph(features))
        return losses.detach()

    def _inform_weighting(
        self, outputs: dict[str, LossOutput], batch: Batch, features: Features
    ) -> None:
        """Hands losses and, where they are asked for, gradients to the weighting."""
        zero = torch.zeros((), device=self.device)
        chance = [outputs[n].chance if n in outputs else zero for n in self.streams]
        # each rank counts its own rows; the weighting adds them up
        tasks = {task: len(own.query) for task, own in batch.tasks.items()}
        rows = [tasks.get(t, 0) if n in outputs else 0 for n, t in self.streams.items()]
        counts = sent(rows, self.device)
        weighting = self.weighting
        losses = self.step_losses.totals(outputs, self.device)
        weighting.observe(losses, counts, torch.stack(chance))
        totals = [outputs[n].total if n in outputs else None for n in self.streams]
        if self.watched is not None and len(outputs) > 1:
            self.watched.add(totals, self._graph(features))
        if not weighting.due(self.step):
            return
        if weighting.needs_features:
            weighting.observe_features(features.pooled)
        if weighting.gram is not None and len(outputs) > 1:
            weighting.gram.add(totals, self._graph(features))
        if weighting.lag == 0:
            self.weight_update = self.update_weighting()

    def _graph(self, features: Features) -> Graph:
        trained = [p for p in self.parameters() if p.requires_grad]
        return Graph(features.pooled, features.projected, trained)

    def on_fit_start(self) -> None:
        """Tells the weighting what it will weigh."""
        bounds = {name: getattr(loss, "lower_bound", None) for name, loss in self.losses.items()}
        further = [name for name, task in self.streams.items() if name != task]
        self.weighting.bind(bounds, self.trainer.accumulate_grad_batches, further)

    def configure_model(self) -> None:
        """With a mesh of devices (``trainer=fsdp``) each process keeps a part of every weight."""
        if self.device_mesh is not None and not isinstance(self, FSDPModule):
            shard(self, self.device_mesh["data_parallel"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Tells which rows of the table of embeddings are whose prefix."""
        checkpoint["prefixes"] = self.prefixes

    def configure_optimizers(self) -> Any:
        """Groups for backbone and head; see `polyqwen.training.optimizer`."""
        head = nn.ModuleList([self.pooling, self.projection, self.losses])
        return self.optimizer(self.encoder, head)

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
        # Lightning sets the trainer's data module without declaring it.
        return cast(Any, self.trainer).datamodule.splits.views("dev" if split == "val" else split)

    def evaluated_pairs(self, batch: Batch, task: str) -> PairEmbeddings:
        """One task's rows as metrics take them; with logits where its loss has classes."""
        features = self.features(batch)
        return self.step_losses.evaluated(task, select(features.embeddings, features.tasks[task]))

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
        """Lets the embeddings go, after the callbacks have seen them."""
        self.evaluated.clear()

    def on_test_end(self) -> None:
        """As `on_validation_end`."""
        self.evaluated.clear()

    def _log_views(self, split: str) -> None:
        # Lightning's own clock is relative to the run; ours is absolute, so it is handed along.
        values = {"step": float(self.step)} | self._seen.scalars(split, self._views(split))
        chance = self._seen.chance() if split == "test" else {}
        self.evaluated.update(self._seen.take())
        # no sync_dist: computed from all ranks' rows already; Lightning warns when it is read
        warnings.filterwarnings("ignore", message="It is recommended to use .*sync_dist")
        self.log_dict(values)
        self.log_dict(chance, logger=False)  # constants: for the final table, not for charts
