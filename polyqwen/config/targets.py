"""What a configuration may have built: classes made for it, by the name they are defined under."""

import ast

from polyqwen.config.errors import suggest
from polyqwen.config.signatures import Function, Signature, signature_of, walk

ROOMS = (  # any class of theirs
    "checkpoints.callbacks",
    "data",
    "losses",
    "metrics",
    "models",
    "tensorboard",
    "training.callbacks",
    "weighting",
)
MAKERS = ("from_config", "from_pretrained")  # class methods that make an object of the class
FUNCTIONS = (  # modules whose functions make a part, or are one
    "polyqwen.data.sampling.curriculum",
    "polyqwen.training.optimizer",
    "polyqwen.training.schedules",
)
SINGLE = ("polyqwen.app.study.plan.Study",)
STANDARD = ("datetime.timedelta",)  # the type of Lightning's time limits
LIGHTNING = (
    "lightning.pytorch.Trainer",
    *(
        f"lightning.pytorch.callbacks.{name}"
        for name in (
            "DeviceStatsMonitor",
            "EMAWeightAveraging",
            "EarlyStopping",
            "LearningRateMonitor",
            "ModelCheckpoint",
            "ModelSummary",
            "RichModelSummary",
            "RichProgressBar",
            "StochasticWeightAveraging",
            "TQDMProgressBar",
            "ThroughputMonitor",
            "Timer",
            "WeightAveraging",
        )
    ),
    "lightning.pytorch.loggers.CSVLogger",
    "lightning.pytorch.loggers.TensorBoardLogger",
    "lightning.pytorch.profilers.AdvancedProfiler",
    "lightning.pytorch.profilers.PyTorchProfiler",
    "lightning.pytorch.profilers.SimpleProfiler",
)
ALLOWED = (
    "targets are public classes under "
    f"polyqwen.* ({', '.join(ROOMS)}), named where they are defined, schedules, and Lightning's "
    "trainer, callbacks and local loggers"
)


class NotAllowed(ValueError):
    """A target that may not be named, whether it exists or not."""


def allowed_signature(target: str) -> Signature | None:
    """The signature of a target that may be named; None for one outside the files that are read.

    A name that a module imports is not the module's own, so no detour leads to other packages.

    Raises:
        NotAllowed: it may not be named.
        NoSuchTarget: it might, but is not there.
        NotStatic: it is there, and its signature cannot be read.
    """
    if target in STANDARD:
        return None
    if target in LIGHTNING:
        return signature_of(target)
    top = target.partition(".")[0]
    if top == "lightning":
        raise NotAllowed(f"{target} is not allowed; {suggest(target, LIGHTNING)}")
    if top != "polyqwen" or any(part.startswith("_") for part in target.split(".")):
        raise NotAllowed(f"{target} is not allowed; {ALLOWED}")
    found, owner = walk(target)
    named = owner or found
    own = f"{owner.path}.{found.name}" if owner else found.path
    if own != target:
        raise NotAllowed(f"{target} stands for {own}, which is not allowed as a target; {ALLOWED}")
    if not _of_an_open_kind(target, named.node, named.module, found.name if owner else None):
        raise NotAllowed(f"{target} is not allowed; {ALLOWED}")
    return signature_of(target)


def _of_an_open_kind(target: str, node: ast.AST | None, module: str, method: str | None) -> bool:
    if target in SINGLE:
        return True
    if isinstance(node, Function):
        return module in FUNCTIONS
    in_a_room = any(module.startswith(f"polyqwen.{room}.") for room in ROOMS)
    return (
        isinstance(node, ast.ClassDef)
        and (in_a_room or module in FUNCTIONS)
        and (method is None or method in MAKERS)
    )
