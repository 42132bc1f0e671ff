"""What a plan holds: plain numbers and texts, which go into ``plan.json`` as they are."""

from typing import Any, NamedTuple


class TaskInPhase(NamedTuple):
    """One task in one phase; None stands for what cannot be known."""

    task: str
    rows: float  # of a step, mean over the phase
    share: float  # of the rows of a step
    negatives: float | None  # candidates that a row is contrasted with, mean; None: not contrastive
    passes: float | None  # over the task's rows, in this phase
    present: float  # part of the micro-batches that have a row of the task
    weight: float  # λ · boost at the phase's first step
    loss_share: float  # weight · present, as a part of the sum over tasks


class PhasePlan(NamedTuple):
    """One phase, as far as this run takes part in it."""

    name: str
    start: int
    stop: int
    rows: float  # of a step, mean
    tasks: tuple[TaskInPhase, ...]


class ShareCurve(NamedTuple):
    """The tasks' parts of the rows drawn, over the run: mean over the steps up to the next one."""

    steps: tuple[int, ...]  # absolute; every phase begins with one
    shares: dict[str, tuple[float, ...]]  # task -> one for each of the steps


class TaskPlan(NamedTuple):
    """One task over the whole run; None stands for what cannot be known."""

    task: str
    train: int | None  # rows to train on
    dev: int | None  # rows of each validation
    test: int | None
    drawn: int  # rows, with repetitions
    passes: float | None
    never_seen: int | None  # rows


class SchedulePlan(NamedTuple):
    """One value that moves with the optimizer step."""

    name: str
    of: str  # which losses, tasks or parameters
    start: float
    end: float
    first: int  # absolute step at which it leaves `start`
    steps: int  # until `end`
    key: str  # of its length


class PartPlan(NamedTuple):
    """Parameters of one part of the model."""

    part: str
    parameters: int
    trained: int


class GroupPlan(NamedTuple):
    """One group of the optimizer."""

    name: str
    tensors: int
    parameters: int
    lr: float  # at its peak
    weight_decay: float


class MemoryPlanned(NamedTuple):
    """Bytes on one device; None stands for what cannot be known."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float  # more of both while a step has them whole (trainer=fsdp)
    casts: float  # half-precision copies of weights within a step
    activations: float | None
    mode: str  # of large_batch for them
    tokens: float | None  # of a micro-batch on one device
    capped: bool  # the tokens are the most that rows may have, not those of the data
    available: float | None

    @property
    def total(self) -> float | None:
        """All of it at its highest; None if a part of it is not known."""
        if self.activations is None:
            return None
        fixed = self.weights + self.gradients + self.optimizer + self.gathered + self.casts
        return fixed + self.activations


class PlanWarning(NamedTuple):
    """Something that may not be meant: the rule that found it, and a line with the key to turn."""

    rule: str
    text: str


class Plan(NamedTuple):
    """All of it.

    Attributes:
        head: what the run is, by a word: experiment, steps, devices, rows of a step.
        notes: what could not be known, or holds for another machine.
        shares: of the rows that are drawn.
        intervals: what happens every so many steps.
        validated: absolute steps that end with a validation, whatever the interval.
    """

    head: dict[str, str]
    phases: tuple[PhasePlan, ...]
    tasks: tuple[TaskPlan, ...]
    shares: ShareCurve
    weighting: str
    schedules: tuple[SchedulePlan, ...]
    intervals: dict[str, int]
    validated: tuple[int, ...]
    parts: tuple[PartPlan, ...]
    groups: tuple[GroupPlan, ...]
    memory: MemoryPlanned | None
    warnings: tuple[PlanWarning, ...]
    notes: tuple[str, ...]


def plain(value: Any) -> Any:
    """A plan, or a part of one, as JSON has it: named tuples are mappings."""
    if hasattr(value, "_asdict"):
        return {key: plain(inner) for key, inner in value._asdict().items()}
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value
