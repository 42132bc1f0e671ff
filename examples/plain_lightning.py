"""A LightningModule of one's own with polyqwen's curriculum, batch sampler, loss and task weights.

Run it with: python examples/plain_lightning.py. Random vectors stand for the features of two tasks.
"""

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, Dataset

from polyqwen.data import MicroBatchSampler, StepSampler, two_phase
from polyqwen.losses import InfoNCELoss, Pairs
from polyqwen.weighting import UncertaintyWeighting, Weighting


class Features(Dataset):
    """A batch is task -> rows, queries and documents; `MicroBatchSampler` says which rows."""

    def __init__(self, noise: dict[str, float]) -> None:
        self.queries = {task: torch.randn(512, 16) for task in noise}
        self.documents = {
            task: query.roll(1, dims=1) + noise[task] * torch.randn_like(query)
            for task, query in self.queries.items()
        }

    def __getitems__(self, keys: list[tuple[str, int]]) -> dict[str, tuple[Tensor, ...]]:
        rows = {task: torch.tensor([r for t, r in keys if t == task]) for task, _ in keys}
        return {t: (r, self.queries[t][r], self.documents[t][r]) for t, r in rows.items()}


class TwoTasks(pl.LightningModule):
    """Sums the tasks' losses with the weights of any strategy."""

    def __init__(self, weighting: Weighting) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 32))
        self.loss, self.weighting = InfoNCELoss(temperature=0.1), weighting

    def training_step(self, batch: dict[str, tuple[Tensor, ...]], _: int) -> Tensor:
        losses, counts = torch.zeros(2, device=self.device), torch.zeros(2, device=self.device)
        for task, (rows, query, document) in batch.items():
            query, document = (normalize(self.encoder(x), dim=-1) for x in (query, document))
            index = self.weighting.tasks.index(task)
            losses[index] = self.loss(Pairs(query, document, rows, rows)).total
            counts[index] = len(rows)
        self.weighting.observe(losses, counts)
        return (self.weighting.weights(self.global_step) * losses).sum()

    def on_train_batch_end(self, *_: object) -> None:
        self.weighting.end_step()
        if self.weighting.due(self.global_step - 1):  # the step that has just ended
            self.weighting.update(self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.encoder.parameters(), lr=1e-2)


if __name__ == "__main__":
    pl.seed_everything(0)
    data = Features({"titles": 0.1, "comments": 1.0})
    shares = dict.fromkeys(data.queries, 1.0)
    curriculum = two_phase(shares, foundation=["titles"], switch_step=50, total_steps=200)
    steps = StepSampler(dict.fromkeys(shares, 512), curriculum, global_batch=64, seed=0)
    loader = DataLoader(data, batch_sampler=MicroBatchSampler(steps), collate_fn=dict)
    module = TwoTasks(UncertaintyWeighting(static=shares))
    trainer = pl.Trainer(
        max_steps=curriculum.total_steps,
        accelerator="cpu",
        use_distributed_sampler=False,  # ours knows processes itself
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)
    weights = module.weighting.weights(trainer.global_step).tolist()
    print(dict(zip(module.weighting.tasks, weights, strict=True)))
