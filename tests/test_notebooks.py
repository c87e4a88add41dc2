"""The notebooks of this project have the same structure and follow the same rules."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import dbx_aml
from dbx_aml import score_table
from dbx_aml.local.notebook.source import Cell, read_notebook
from tests.support.notebook import widget_names

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.py"))
STEPS = [path for path in PATHS if not path.name.startswith("_")]
MAX_LINES = 14
FORBIDDEN = [
    r"sys\.path",
    r"%cd",
    r"import \*",
    r"getContext|entry_point",
    r"git\+https",
    r"%pip|%sh",
    r"/tmp/|sqlite:|file:",
]

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
each_step = pytest.mark.parametrize("path", STEPS, ids=lambda path: path.name)


def described_names(cell: Cell) -> list[str]:
    """Return the names in the first column of a cell's table."""
    return re.findall(r"^\| `(\w+)(?:\(\w*\))?` \|", cell.source, re.MULTILINE)


def test_each_step_of_the_flow_has_a_notebook() -> None:
    assert [path.name for path in PATHS] == [
        "01_link.py",
        "02_track.py",
        "03_register.py",
        "04_score.py",
        "05_serve.py",
        "06_monitor.py",
        "07_clean.py",
        "_setup.py",
    ]


@each_step
def test_cell_1_has_purpose_widgets_and_outputs(path: Path) -> None:
    first = read_notebook(path)[0]

    assert first.kind == "markdown"
    assert first.source.strip().startswith(f"# {path.name[:2]} ")
    assert "| widget | example | required | meaning |" in first.source
    assert "**Writes**" in first.source
    assert "**Ends with**" in first.source


@each_step
def test_the_widget_table_has_every_widget(path: Path) -> None:
    cells = read_notebook(path)

    described = described_names(cells[0])
    assert len(described) == len(set(described))
    assert set(described) == widget_names(cells)


@each_step
def test_cell_2_runs_setup_alone(path: Path) -> None:
    second = read_notebook(path)[1]

    assert (second.kind, second.source) == ("run", "./_setup")


@each_step
def test_the_last_cell_ends_with_json(path: Path) -> None:
    tree = ast.parse(read_notebook(path)[-1].source)

    assert len(tree.body) == 1
    assert re.fullmatch(r"dbutils\.notebook\.exit\(json\.dumps\(.+\)\)", ast.unparse(tree.body[0]))


@each_notebook
def test_cells_are_short_and_have_no_branches(path: Path) -> None:
    code = [cell for cell in read_notebook(path) if cell.kind == "python"]

    assert code
    for cell in code:
        assert len(cell.source.splitlines()) <= MAX_LINES, cell.location()
        branches = [
            node
            for node in ast.walk(ast.parse(cell.source))
            if isinstance(node, ast.If | ast.IfExp | ast.Try)
        ]
        assert not branches, cell.location(branches[0].lineno)


@each_notebook
@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_cell_depends_on_one_machine(path: Path, pattern: str) -> None:
    assert re.search(pattern, path.read_text(encoding="utf-8")) is None


def test_setup_only_defines_names_and_lists_them_and_shows_the_status() -> None:
    head, *code = read_notebook(ROOT / "notebooks" / "_setup.py")
    *statements, last = [statement for cell in code for statement in ast.parse(cell.source).body]

    assert ast.unparse(last) == "status"
    assert set(described_names(head)) == {
        name for statement in statements for name in defined_names(statement)
    }
    assert len(described_names(head)) == 8


def defined_names(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines; _setup has no other statements."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets]
    assert isinstance(node, ast.FunctionDef), ast.unparse(node)
    return [node.name]


def test_the_score_notebook_has_the_defaults_of_score_table() -> None:
    parameters = inspect.signature(score_table).parameters
    others = {"model_uri", "input_table", "output_table", "replay"}

    checked = set()
    for cell in read_notebook(ROOT / "notebooks" / "04_score.py"):
        for call in re.findall(r'widgets\.\w+\("(\w+)", "([^"]*)"', cell.source):
            name, default = call
            if name not in others:
                assert default == (parameters[name].default or ""), name
                checked.add(name)
    assert {"write_mode", "max_quarantined_rows", "environment", "row_filter"} <= checked


def test_only_notebook_runner_test_kit_and_credentials_use_dbutils() -> None:
    package = Path(dbx_aml.__file__).parent
    files = sorted(package.rglob("*.py"))

    users = {file.relative_to(package).parts[0] for file in files if uses_dbutils(file)}
    assert len(files) > 10
    assert users == {"local", "azure", "testing"}


def uses_dbutils(file: Path) -> bool:
    return re.search(r"\bdbutils\b", file.read_text(encoding="utf-8")) is not None
