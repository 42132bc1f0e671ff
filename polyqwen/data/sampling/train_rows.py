"""Which rows every step of a training takes."""

from collections.abc import Mapping

from polyqwen.data.rows.task import Task
from polyqwen.data.sampling.batches import MicroBatchSampler
from polyqwen.data.sampling.curriculum import Curriculum
from polyqwen.data.sampling.permutation import Rows
from polyqwen.data.sampling.sampler import StepSampler
from polyqwen.data.sampling.shares import AdaptiveSampling, Sampling
from polyqwen.data.tables.dataset import MultiTaskDataset


class TrainRows:
    """The curriculum's shares of all tasks, cut into the micro-batches of each process.

    Args:
        tasks: task -> its columns and sizes.
        curriculum: shares by optimizer step.
        sampling: how tasks share a step.
        batch_size: see `CurriculumDataModule`, as for the next one.
        rows_per_task: of a process and micro-batch.
        seed: of the order of rows.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        curriculum: Curriculum,
        sampling: Sampling,
        batch_size: int | None,
        rows_per_task: int | dict[str, int | None] | None,
        seed: int,
    ) -> None:
        rows = rows_per_task
        default = rows if isinstance(rows, dict) else dict.fromkeys(tasks, rows)
        own = {name: task.batch_size or default.get(name) for name, task in tasks.items()}
        self.own = {name: count for name, count in own.items() if count}
        self.easy_first = [name for name, task in tasks.items() if task.easy_first]
        self.curriculum, self.sampling = curriculum, sampling
        self.batch_size, self.seed = batch_size, seed
        self._steps: StepSampler | None = None  # of the training in progress

    def micro_batches(
        self, dataset: MultiTaskDataset, world: int, rank: int, accumulate: int, max_steps: int
    ) -> MicroBatchSampler:
        """This process's rows of every micro-batch.

        Args:
            dataset: the rows of all tasks.
            world: processes.
            rank: of this one.
            accumulate: micro-batches in an optimizer step.
            max_steps: optimizer steps of the run; below 1: as many as the curriculum has.
        """
        self._steps = self.steps(
            {task: len(table) for task, table in dataset.tables.items()},
            world * accumulate,
            {name: dataset.easy_first(name, self.seed) for name in self.easy_first},
        )
        return MicroBatchSampler(
            self._steps,
            accumulate=accumulate,
            rank=rank,
            world=world,
            max_steps=max_steps if max_steps > 0 else None,
            costs=dataset.costs_at,
        )

    def steps(
        self, rows: Mapping[str, int], cells: int, first: Mapping[str, Rows] | None = None
    ) -> StepSampler:
        """The rows of every optimizer step, of all processes together.

        Args:
            rows: task -> number of rows.
            cells: processes times micro-batches of a step.
            first: task -> order of its first pass, for tasks that do not start shuffled.
        """
        return StepSampler(
            rows,
            self.curriculum,
            None if self.batch_size is None else self.batch_size * cells,
            self.seed,
            {name: count * cells for name, count in self.own.items()},
            self.sampling,
            first,
        )

    def check_horizon(self, workers: int, accumulate: int) -> None:
        """Shares must not change for batches that loaders have fetched already.

        Raises:
            ValueError: the window of an adaptive sampling is too short.
        """
        if not isinstance(self.sampling, AdaptiveSampling):
            return
        # a worker has two batches under way, and the trainer asks for one more
        ahead = -(-(2 * workers + 2) // accumulate)
        if self.sampling.window < ahead:
            raise ValueError(
                f"data.sampling.window={self.sampling.window} is shorter than the {ahead} steps "
                f"that {workers} workers fetch ahead; raise it, or use fewer workers"
            )

    def resample(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Lets an adaptive sampling decide at the end of a window; see `AdaptiveSampling.decide`.

        Returns:
            Task -> factor.
        """
        assert isinstance(self.sampling, AdaptiveSampling) and self._steps is not None
        tasks = self._steps.tasks
        factors = self.sampling.decide(step, [values[task] for task in tasks])
        self._steps.refresh()
        return dict(zip(tasks, factors, strict=True))
