"""How much of the total loss each task has as the weighting starts."""

from collections.abc import Callable, Mapping, Sequence

from polyqwen.build.plan.types import PhasePlan
from polyqwen.weighting.base import Weighting

Boosts = Callable[[int], Mapping[str, float]]


def with_weights(
    phases: Sequence[PhasePlan], weighting: Weighting, streams: Mapping[str, str], boosts: Boosts
) -> list[PhasePlan]:
    """The phases with λ · boost of each task's loss at the phase's first step, and its share.

    The share is that of the total if all losses were alike; a task that is in a part of the
    micro-batches counts for that part. The weights are those that the weighting starts from: where
    they follow the losses, later phases begin with others.

    Args:
        phases: as planned from the rows.
        weighting: of the run, before its first update.
        streams: name of each loss -> the task whose pairs it reads.
        boosts: absolute step -> factors of tasks; 1 for those left out.
    """
    planned = []
    for phase in phases:
        values = dict(zip(weighting.tasks, weighting.weights(phase.start).tolist(), strict=True))
        boost, present = boosts(phase.start), {t.task: t.present for t in phase.tasks}
        shares = dict.fromkeys(present, 0.0)
        for name, value in values.items():
            task = streams[name]
            if task in shares:
                shares[task] += value * boost.get(task, 1.0) * present[task]
        total = sum(shares.values())
        tasks = [
            t._replace(
                weight=values[t.task] * boost.get(t.task, 1.0),
                loss_share=shares[t.task] / total if total > 0.0 else 0.0,
            )
            for t in phase.tasks
        ]
        planned.append(phase._replace(tasks=tuple(tasks)))
    return planned
