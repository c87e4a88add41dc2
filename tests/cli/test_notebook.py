"""`dbx-aml notebook run`: exit codes, streams, values of widgets."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dbx_aml.cli.main import main
from dbx_aml.local.notebook import workspace_stub
from tests.support.notebook import write_notebook


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["notebook", "run", *map(str, arguments)])


@pytest.fixture
def path(tmp_path: Path, monkeypatch) -> Path:
    """A notebook that needs no Spark, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workspace_stub, "local_workspace", nullcontext)
    return write_notebook(
        tmp_path / "main.py",
        "dbutils.widgets.text('n', '0')",
        "print('n is', dbutils.widgets.get('n'))",
        "1 / int(dbutils.widgets.get('n'))",
        "dbutils.notebook.exit(dbutils.widgets.get('n') + '!')",
    )


def test_cells_print_on_stdout_and_progress_is_on_stderr(path) -> None:
    result = run(path, "-w", "n=2", "--html", "page.html")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["n is 2", "0.5", "2!"]
    lines = result.stderr.splitlines()
    assert lines[:2] == ["main.py: cell 1 of 4", "main.py: cell 1 of 4: 0.0 s"]
    assert lines[-3].startswith("main.py: cell 4 of 4")
    assert lines[-2] == "page: page.html"
    assert lines[-1].startswith("main.py ran to its end in ")
    assert Path("page.html").exists()


def test_an_error_is_one_line_with_its_location_and_the_page_is_written(path) -> None:
    result = run(path, "--html", "page.html")

    assert result.exit_code == 1
    error = result.stderr.splitlines()[-1]
    assert error.endswith("cell 3 of main.py, line 10: ZeroDivisionError: division by zero")
    assert "Traceback" not in result.output
    assert "division by zero" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["main.py", "-w", "n"], "'n' is not NAME=VALUE."),
        (["main.py", "-w", "=1"], "'=1' is not NAME=VALUE."),
        (["absent.py"], "notebook must be an existing text file: got 'absent.py'"),
    ],
)
def test_wrong_usage_ends_with_2_before_spark_starts(path, arguments, message, monkeypatch) -> None:
    monkeypatch.setattr(workspace_stub, "local_workspace", None)

    result = run(*arguments)

    assert result.exit_code == 2
    assert message in result.stderr
