"""Words that configuration files may use inside ``${…}``."""

from pathlib import Path

from omegaconf import OmegaConf

import polyqwen


def register() -> None:
    """Makes ``${asset:NAME}`` the path of a file shipped with the package."""
    assets = Path(polyqwen.__file__).parent / "assets"
    OmegaConf.register_new_resolver("asset", lambda name: str(assets / name), replace=True)
