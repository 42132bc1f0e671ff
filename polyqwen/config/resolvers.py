"""OmegaConf resolvers: what configuration files may use inside ``${…}``."""

import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

SECRET = re.compile("TOKEN|SECRET|PASSW|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY", re.IGNORECASE)


def register() -> None:
    """Registers the resolvers of values that a file cannot know.

    ``${asset:NAME}`` is a file shipped with the package, ``${stamp:}`` names a run by its start,
    ``${oc.env:NAME,DEFAULT}`` is OmegaConf's own, but for secrets.
    ``${by_weights:TARGET,PRETRAINED,RANDOM}`` is one value or the other, as an encoder's target
    loads weights or draws them.
    """
    assets = Path(__file__).parents[1] / "assets"
    OmegaConf.register_new_resolver("asset", lambda name: str(assets / name), replace=True)
    OmegaConf.register_new_resolver("by_weights", by_weights, replace=True)
    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    OmegaConf.register_new_resolver("stamp", stamp, use_cache=True, replace=True)


def env(name: str, *default: Any) -> Any:
    """An environment variable; a configuration is saved and shown, so secrets stay out of it.

    Raises:
        ValueError: its name tells of a secret.
    """
    if SECRET.search(name):
        raise ValueError(f"${{oc.env:{name}}} sounds like a secret, and configurations are saved")
    return oc.env(name, *default)


def by_weights(target: str, pretrained: Any, random: Any) -> Any:
    """A rate that suits published weights is a hundred times too small for random ones."""
    return pretrained if target.endswith(".from_pretrained") else random


def stamp() -> str:
    """Names a run by its start; processes that a launcher started together agree on it."""
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from torch.distributed import TCPStore  # the one that torchrun keeps for its processes

        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        key = f"polyqwen/stamp/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        if os.environ["RANK"] == "0":
            store.set(key, now)
        return store.get(key).decode()
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return f"slurm_{os.environ['SLURM_JOB_ID']}_{os.environ.get('SLURM_STEP_ID', '0')}"
    return now
