"""Hydra's search path: ``conf`` of the working folder comes before the package's own files."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from polyqwen.config.composition_errors import COMPOSITION, explain
from polyqwen.config.conf import conf_folders
from polyqwen.config.errors import ConfigError

SEARCH_PATH = "hydra.searchpath"


class WorkingFolder(SearchPathPlugin):
    """Adds ``./conf``, if there is one, in front of the folder that the command names."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra when it makes a search path."""
        for folder in conf_folders()[:-1]:
            search_path.prepend("working-folder", f"file://{folder}", anchor="main")


def use_working_folder(primary: str) -> None:
    """From here on Hydra finds files of the working folder; they are checked like any other.

    Args:
        primary: name of the primary file; one in ``./conf`` replaces the package's.

    Raises:
        ConfigError: that file is broken, or extends the search path, which may import packages
            (``pkg://``).
    """
    Plugins.instance().register(WorkingFolder)
    for folder in conf_folders()[:-1]:
        file = folder / f"{primary}.yaml"
        try:
            found = OmegaConf.select(OmegaConf.load(file), SEARCH_PATH) if file.is_file() else None
        except COMPOSITION as error:
            raise explain(error, ()) from error
        if found is not None:
            hint = "give it on the command line, or use --config-dir"
            raise ConfigError(SEARCH_PATH, f"may not be set in {file}", hint)
