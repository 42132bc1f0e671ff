"""A plain PyTorch loop with polyqwen's curriculum, sampler, loss and task weights.

Run it with: python examples/plain_torch.py. Random vectors stand for features of two tasks, one
noisier than the other.
"""

import torch
from torch import nn
from torch.nn.functional import normalize

from polyqwen.data import StepSampler, two_phase
from polyqwen.losses import InfoNCELoss, Pairs
from polyqwen.weighting import StrategicTaskWeighting

torch.manual_seed(0)
tasks = {"titles": 1.0, "comments": 1.0}  # task -> share of a step's rows
queries = {task: torch.randn(512, 16) for task in tasks}
noise = {"titles": 0.1, "comments": 1.0}
documents = {t: q.roll(1, dims=1) + noise[t] * torch.randn_like(q) for t, q in queries.items()}

curriculum = two_phase(tasks, foundation=["titles"], switch_step=50, total_steps=200)
sampler = StepSampler(dict.fromkeys(tasks, 512), curriculum, global_batch=64, seed=0)
weighting = StrategicTaskWeighting(
    static=dict.fromkeys(tasks, 1.0),
    alpha={},
    beta={"foundation": 1.05, "balance": 0.95, "until_step": 50},
    eval_steps=25,
)
loss = InfoNCELoss(temperature=0.1)
encoder = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 32))
optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)

for step in range(curriculum.total_steps):
    losses, counts = torch.zeros(len(tasks)), torch.zeros(len(tasks))
    for task, rows in sampler.rows_of_step(step).items():  # tasks without rows are left out
        query = normalize(encoder(queries[task][rows]), dim=-1)
        document = normalize(encoder(documents[task][rows]), dim=-1)
        key = torch.from_numpy(rows)  # says which rows have the same content
        index = weighting.tasks.index(task)
        losses[index] = loss(Pairs(query, document, key, key)).total
        counts[index] = len(rows)
    weighting.observe(losses, counts)
    (weighting.weights(step) * losses).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    weighting.end_step()
    if weighting.due(step) and (update := weighting.update(step + 1)):
        print(update.step, {task: round(weight, 3) for task, weight in update.new.items()})
