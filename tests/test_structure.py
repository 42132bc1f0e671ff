"""The rooms of the package: who may import whom, and nothing in a circle.

Imports are read from the source, those inside functions and under ``TYPE_CHECKING`` too.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "polyqwen"
SCIENCE = ("losses", "metrics", "weighting", "models", "data", "training")
# from the lowest to the highest; rooms of one line may import each other, without a circle
FLOORS = (
    ("atomic_files", "lazy", "version"),
    ("losses", "metrics", "weighting", "models", "data"),
    ("training",),
    ("checkpoints",),
    ("config",),
    ("build",),
    ("runs",),
    ("report",),
    ("tensorboard",),
    ("inference",),
    ("export",),
    ("app",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# travels alone with exported models, and so repeats what it needs
ALONE = PACKAGE / "export" / "modeling_polyqwen.py"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path != ALONE
}


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else str(node.module) for name in whole]
        else:
            continue
        yield from (name for name in names if name in FILES)


def room_of(module: str) -> str:
    """The first level below the package; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


IMPORTS = {
    module: {name for name in imported(path) if name != module} for module, path in FILES.items()
}


def test_imports_are_found() -> None:
    """The tests below would pass on an empty table too."""
    assert len(IMPORTS) > 250 and sum(map(len, IMPORTS.values())) > 600
    assert "polyqwen.losses.similarity" in IMPORTS["polyqwen.losses.info_nce"]


def test_every_room_has_a_floor() -> None:
    assert {room_of(module) for module in FILES} - {""} == set(FLOOR)


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_no_room_imports_a_higher_one(room: str) -> None:
    climbs = [
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        for name in names
        if room_of(module) == room and FLOOR.get(room_of(name), 0) > FLOOR[room]
    ]
    assert not climbs


def test_the_science_imports_nothing_of_the_rest() -> None:
    below = {*SCIENCE, *FLOORS[0], ""}
    others = [
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        for name in names
        if room_of(module) in SCIENCE and room_of(name) not in below
    ]
    assert not others


def test_no_imports_in_a_circle() -> None:
    """Neither between modules, nor between rooms."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for module, names in IMPORTS.items():
        rooms[room_of(module)] |= {room_of(name) for name in names} - {room_of(module), ""}
    for graph in (IMPORTS, {room: names for room, names in rooms.items() if room}):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            pytest.fail(" → ".join(error.args[1]))


def test_no_class_name_stands_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module, path in FILES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_few_modules_lie_outside_of_the_rooms() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert len(loose) <= 3
