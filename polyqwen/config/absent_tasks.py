"""Drops the settings that an experiment has for tasks that take no part in a run."""

from collections.abc import Collection

from omegaconf import DictConfig, OmegaConf, open_dict

from polyqwen.config.toplevel import BY_TASK


def drop_absent_tasks(cfg: DictConfig, known: Collection[str]) -> list[str]:
    """Removes nodes of known tasks that are not among the run's, such as ``losses.text_pair``.

    An experiment may set what it wants of each of its tasks, and be used with any choice of them:
    for a task that is not chosen there is nothing to be set. Such a node has no ``_target_``, which
    comes from the task's file. A name that is no task at all stays, to be refused.

    Args:
        cfg: the composed configuration, changed in place.
        known: names of all tasks that have a file.

    Returns:
        Paths of the nodes that were removed.
    """
    dropped = []
    for table in BY_TASK:
        nodes = OmegaConf.to_container(cfg.get(table) or OmegaConf.create({}), resolve=False)
        assert isinstance(nodes, dict)
        for name, node in nodes.items():
            if name in known and isinstance(node, dict) and "_target_" not in node:
                with open_dict(cfg):
                    del cfg[table][name]
                dropped.append(f"{table}.{name!s}")
    return dropped
