"""The rooms of a project: who imports whom, how large they are, and where private names stand.

`my_app` is the owner's, `flask_background` and `devtools` are the template's. The imports are read
from the source, with those inside of functions.
"""

from __future__ import annotations

import ast
import fnmatch
import graphlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from flask_background import celery_internals
from support import PROJECT_FOLDER, ROOT, Answers, Report, git

ENGINE, TOOLS = "flask_background", "devtools"
#: The layers of the engine from below. What stands in one imports only from those before it.
LAYERS = (
    ("base", "celery_internals"),
    ("core",),
    ("state",),
    ("cluster",),
    ("worker", "sending"),
    ("commands",),
    ("app",),
    ("database",),
    ("__init__",),
)
#: The second face of the engine, in projects with a database.
DATABASE = f"{ENGINE}.database"
#: The one file for private names of Celery, Kombu and billiard.
INTERNALS = f"{ENGINE}.celery_internals"
#: What begins with an underscore and is documented all the same.
PUBLIC = {"_exit", "_get_current_object", "_replace"}
#: The most lines that a room may have, and a file of it. What is larger than it shall become has
#: its size of today; lower the number when it shrinks.
MOST_OF_A_FILE = 300
MOST = {
    "my_app": 2160,
    "my_app without examples": 1530,
    "tests": 2020,
    ENGINE: 7300,  # shall be 4300
    DATABASE: 480,
}
#: With a database (and the files for Heroku).
MORE_WITH_A_DATABASE = {"my_app": 520, "my_app without examples": 250, "tests": 340}


@dataclass(frozen=True)
class Module:
    """A file of Python, by its dotted name from the root of the project."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        """What stands in it."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All parts of its code."""
        return list(ast.walk(ast.parse(self.text)))

    @property
    def room(self) -> str:
        """The first part of its name."""
        return self.name.partition(".")[0]

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return len(self.text.splitlines())

    def imports(self) -> Iterator[tuple[str, str]]:
        """Yield each module that it imports from, and the name that it takes ("" for all)."""
        package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, "") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                parts = package.split(".")[: len(package.split(".")) + 1 - node.level]
                above = parts if node.level else []
                module = ".".join([*above, *([node.module] if node.module else [])])
                yield from ((module, alias.name) for alias in node.names)


class House:
    """The Python files of a project."""

    def __init__(self, project: Path) -> None:
        self.slug = project.name
        self.modules = {
            module.name: module
            for path in sorted(project.rglob("*.py"))
            for module in [Module(dotted(path.relative_to(project)), path)]
        }

    def room(self, name: str) -> list[Module]:
        """Return the files of a room."""
        return [module for module in self.modules.values() if module.room == name]

    def uses(self, module: Module) -> set[str]:
        """Name the files of this project that a file imports."""
        found = set()
        for source, name in module.imports():
            inner = f"{source}.{name}"
            found.add(inner if inner in self.modules else source)
        return found & self.modules.keys()


def dotted(path: Path) -> str:
    """Name a file as an import would."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"include_examples": "no"},
        {"database": "postgresql", "use_heroku": "yes"},
        {"database": "sqlite", "include_examples": "no"},
    ],
    ids=["default", "without examples", "postgresql", "sqlite"],
)
def house(request: pytest.FixtureRequest, render: Callable[[Answers], Path]) -> House:
    return House(render(request.param))


@pytest.fixture(scope="module")
def engine() -> list[Module]:
    return House(ROOT / PROJECT_FOLDER).room(ENGINE)


# Who imports whom


def test_the_application_uses_the_face_of_the_engine_and_nothing_behind_it(house: House) -> None:
    for module in [*house.room(house.slug), *house.room("tests")]:
        behind = {source for source, _ in module.imports() if source.startswith(f"{ENGINE}.")}
        assert behind <= {DATABASE}, module.name


def test_the_engine_uses_neither_the_application_nor_the_tools(house: House) -> None:
    for module in house.room(ENGINE):
        assert {name.partition(".")[0] for name in house.uses(module)} <= {ENGINE}, module.name


def test_nothing_that_runs_in_production_uses_the_tools(house: House) -> None:
    for module in house.modules.values():
        # What stands in deploy/ is run by `flask deploy`.
        if module.room not in (TOOLS, "tests", "deploy"):
            rooms = {source.partition(".")[0] for source, _ in module.imports()}
            assert TOOLS not in rooms, module.name


def test_the_smoke_suite_speaks_http_only(house: House) -> None:
    for module in house.room("smoke"):
        rooms = {source.partition(".")[0] for source, _ in module.imports()}
        assert not rooms & {house.slug, ENGINE, TOOLS}, module.name


def test_no_room_has_a_circle(house: House) -> None:
    for room in (house.slug, ENGINE, TOOLS):
        graph = {module.name: house.uses(module) for module in house.room(room)}
        try:
            list(graphlib.TopologicalSorter(graph).static_order())
        except graphlib.CycleError as error:
            pytest.fail(f"{room}: {' <- '.join(error.args[1])}")


def test_nothing_is_imported_for_typing_alone(house: House) -> None:
    for room in (house.slug, ENGINE, TOOLS):
        for module in house.room(room):
            assert "TYPE_CHECKING" not in module.text, module.name


def test_each_layer_of_the_engine_stands_on_those_below(house: House) -> None:
    height = {layer: number for number, row in enumerate(LAYERS) for layer in row}
    wrong = [
        f"{module.name} imports {used}"
        for module in house.room(ENGINE)
        for used in house.uses(module)
        if layer_of(used) != layer_of(module.name)
        and height[layer_of(used)] >= height[layer_of(module.name)]
    ]
    assert wrong == []


def test_the_map_of_the_engine_shows_the_same_layers(engine: list[Module]) -> None:
    text = (ROOT / PROJECT_FOLDER / ENGINE / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `([a-z_]+)(?:/|\.py)` \|", text, re.MULTILINE)
    assert [*shown, "__init__"] == [layer for row in LAYERS for layer in row if layer != "database"]
    layers = {layer_of(module.name) for module in engine}
    assert layers == {*shown, "database", "__init__"}  # only with a database, says docs/database.md


def layer_of(name: str) -> str:
    """Return the part after the engine's name."""
    return [*name.split("."), "__init__"][1]


# Private names


def test_private_names_of_celery_stand_in_one_file(engine: list[Module]) -> None:
    known = names_of_celery()
    others = [module for module in engine if module.name != INTERNALS]
    ours = PUBLIC.union(*map(private_names_of_ours, others)) - known
    for module in others:
        assert set(private_uses(module)) - ours == set(), module.name


def names_of_celery() -> set[str]:
    """Return the names that the one file says it touches."""
    return {name for names in celery_internals.NAMES.values() for name in names.split()}


def private_uses(module: Module) -> Iterator[str]:
    """Yield the private names that a file reads or sets of anything, or imports."""
    for node in module.nodes:
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr
    for source, name in module.imports():
        if not source.startswith(ENGINE):
            yield from (part for part in [*source.split("."), name] if is_private(part))


def private_names_of_ours(module: Module) -> Iterator[str]:
    """Yield the private names that a file gives to its own functions, classes and values."""
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        ):
            yield node.attr


def is_private(name: str) -> bool:
    """Whether a name is private by its form."""
    return name.startswith("_") and not name.endswith("__")


def test_each_private_name_of_celery_is_looked_for(engine: list[Module]) -> None:
    known = names_of_celery()
    ours = PUBLIC.union(*map(private_names_of_ours, engine)) - known
    (internals,) = (module for module in engine if module.name == INTERNALS)
    assert set(private_uses(internals)) - ours - known == set()


def test_what_is_private_in_celery_is_there_still() -> None:
    assert celery_internals.missing() == []


# Sizes


def test_no_room_and_no_file_is_too_large(house: House, report: Report) -> None:
    own = "my_app" if "my_app.demo" in house.modules else "my_app without examples"
    sizes = {
        name: sum(module.lines for module in house.room(room))
        for name, room in ((own, house.slug), ("tests", "tests"))
    }
    for module in house.room(ENGINE):
        part = DATABASE if module.name.startswith(DATABASE) else ENGINE
        sizes[part] = sizes.get(part, 0) + module.lines
    report.add("size", ", ".join(f"{name} {size}" for name, size in sizes.items()))
    more = MORE_WITH_A_DATABASE if DATABASE in sizes else {}
    for name, size in sizes.items():
        assert 0 < size <= MOST[name] + more.get(name, 0), name
    for room in (house.slug, ENGINE, TOOLS):
        for module in house.room(room):
            assert module.lines <= MOST_OF_A_FILE, module.name


def test_what_is_copied_as_it_stands_has_no_mark() -> None:
    questions = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    project = ROOT / PROJECT_FOLDER
    for pattern in questions["_copy_without_render"]:
        copied = [path for path in project.rglob("*") if is_below(path, project, pattern)]
        assert copied, pattern
        for path in filter(Path.is_file, copied):
            assert not re.search(rb"cookiecutter[.']", path.read_bytes()), path


def test_what_has_no_mark_is_copied_as_it_stands() -> None:
    questions = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    project = ROOT / PROJECT_FOLDER
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=project)
    rendered = [
        path
        for path in (project / name for name in names.split("\0") if name)
        if not any(is_below(path, project, one) for one in questions["_copy_without_render"])
    ]
    assert rendered
    for path in filter(Path.is_file, rendered):
        assert re.search(rb"\{[{%#]", path.read_bytes()), path


def is_below(path: Path, project: Path, pattern: str) -> bool:
    """Whether a path, or a folder that it is in, fits a pattern of cookiecutter's."""
    parts = [path, *path.parents]
    inner = [part.relative_to(project) for part in parts if project in part.parents]
    return any(fnmatch.fnmatch(str(part), pattern) for part in inner)
