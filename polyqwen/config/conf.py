"""Where the configuration files are; imports nothing, so that commands start without packages."""

from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"
