"""docs/paper_to_code.md names files, tests and keys that are there, with the values that hold."""

import ast
import re
from collections.abc import Iterator

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from tests.config.test_conf import composed
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "paper_to_code.md"
CHOICES = ("experiment=vipolyqwen", "experiment=stw_report", "experiment=text_multitask")
CHOICES = (*CHOICES, "weighting=calibrated", "weighting=stw_learned", "weighting=lossrag")
CODE = re.compile(r"`([^`]+)`")


def rows() -> Iterator[tuple[str, list[str]]]:
    """(the configuration that a table is about, the cells of a row)."""
    choice = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            choice = next((c for c in CODE.findall(line) if c in CHOICES), choice)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[1] != "file" and cells[0][0] != ":":
            yield choice, cells


ROWS = list(rows())


def test_all_tables_are_read() -> None:
    assert len(ROWS) > 60 and {choice for choice, _ in ROWS} == set(CHOICES)


def test_files_and_tests_are_there() -> None:
    for _, (what, files, _, tests) in ROWS:
        assert CODE.findall(files) and CODE.findall(tests), what
        for path in CODE.findall(files):
            assert (ROOT / path).is_file(), path
        for test in CODE.findall(tests):
            path, _, name = test.partition("::")
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name in functions, test


@pytest.mark.parametrize("choice", CHOICES)
def test_keys_have_the_values_that_are_told(choice: str) -> None:
    cfg = composed(choice)
    checked = 0
    for about, (_, _, keys, _) in ROWS:
        for entry in CODE.findall(keys) if about == choice else ():
            key, _, told = entry.partition("=")
            assert value_of(cfg, key) == yaml.safe_load(told), entry
            checked += 1
    assert checked


def value_of(cfg: DictConfig, key: str) -> object:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    assert name in node, f"there is no {key}"
    value = node[name]
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
