"""What a plan says of the run as a whole: its size, its devices, what happens how often."""

from collections.abc import Sequence

from omegaconf import DictConfig

from polyqwen.build.plan.rows import Layout
from polyqwen.build.plan.steps import RowsPlan
from polyqwen.build.processes import Devices
from polyqwen.build.run import run_steps
from polyqwen.weighting.base import Weighting


def head_of(
    cfg: DictConfig, planned: RowsPlan, layout: Layout, devices: Devices, precision: str
) -> dict[str, str]:
    """The run in a few words, by what they tell."""
    first, last = planned.phases[0].start, planned.phases[-1].stop
    rows = sorted({round(phase.rows) for phase in planned.phases})
    kind = "GPU" if devices.on_gpu else "CPU process"
    many = "" if layout.world == 1 else "es" if kind.endswith("ss") else "s"
    return {
        "run": str(cfg.name),
        "steps": f"{run_steps(cfg):,}" + (f" ({first:,} to {last:,})" if first else ""),
        "rows of a step": " to ".join(f"{n:,}" for n in sorted({rows[0], rows[-1]})),
        "micro-batches of a step": str(layout.accumulate),
        "devices": f"{layout.world} {kind}{many}, {precision}",
        "rows in all": f"{sum(task.drawn for task in planned.tasks):,}",
    }


def intervals_of(cfg: DictConfig, weighting: Weighting) -> dict[str, int]:
    """What happens every so many optimizer steps."""
    found = {"validation": min(int(cfg.validate_every), run_steps(cfg))}
    found["weight update"] = weighting.eval_steps
    for what, key, node in (
        ("checkpoint", "every_n_train_steps", cfg.callbacks.get("last")),
        ("log", "every", cfg.callbacks.get("step_log")),
    ):
        if node and node.get(key):
            found[what] = int(node[key])
    return found


def notes_of_devices(devices: Devices) -> Sequence[str]:
    """What holds for other machines than this one."""
    if devices.missing:
        return [
            f"this machine has {devices.gpus} of the {devices.processes} GPUs that the run asks "
            "for (trainer.devices) and would refuse it; this is the plan for those"
        ]
    if not devices.on_gpu and devices.processes > 1:
        return [
            f"this machine has no GPU: {devices.processes} processes would share its CPU, in "
            "float32 unless trainer.precision says otherwise"
        ]
    return []
