"""Where the configuration files are; imports nothing, so that commands start without packages."""

from pathlib import Path

_INSTALLED = Path(__file__).parents[1] / "conf"  # in a checkout it lies beside the package
CONF = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "conf"

TRAIN = "python train.py" if (CONF.parent / "train.py").is_file() else "polyqwen train"


def working_conf() -> Path:
    """The user's own configuration files: ``conf`` in the working folder, whether it exists or not.

    In the root of a checkout this is `CONF` itself.
    """
    return Path.cwd() / "conf"


def conf_folders() -> list[Path]:
    """Folders in which a group's file is looked for; the first that has it wins."""
    own = working_conf()
    return [own, CONF] if own.is_dir() and not own.samefile(CONF) else [CONF]


def options_of(group: str) -> list[str]:
    """Names of a group's files, sorted."""
    files = (path for folder in conf_folders() for path in (folder / group).glob("*.yaml"))
    return sorted({path.stem for path in files})
