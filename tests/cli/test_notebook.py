"""`dbx-aml notebook run`: exit codes, streams, values of widgets."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dbx_aml.cli.main import main
from dbx_aml.local.notebook import workspace_stub
from tests.support.notebook import write_notebook


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["notebook", "run", *map(str, arguments)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_notebook(
        tmp_path / "main.py",
        "dbutils.widgets.text('n', '0')",
        "print('n is', dbutils.widgets.get('n'))",
        "1 / int(dbutils.widgets.get('n'))",
        "dbutils.notebook.exit(dbutils.widgets.get('n') + '!')",
    )


@pytest.fixture
def shared_spark(spark, monkeypatch, tmp_path):
    """The tests' own session, which a command must not stop."""
    from contextlib import contextmanager

    @contextmanager
    def lent():
        yield spark

    monkeypatch.setattr(workspace_stub, "local_workspace", lent)


@pytest.mark.spark
def test_cells_print_on_stdout_and_progress_is_on_stderr(shared_spark, path, tmp_path) -> None:
    done = run(path, "-w", "n=2=2"[:3], "--html", tmp_path / "page.html")

    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == ["n is 2", "0.5", "2!"]
    lines = done.stderr.splitlines()
    assert lines[:2] == ["main.py: cell 1 of 4", "main.py: cell 1 of 4: 0.0 s"]
    assert lines[-3].startswith("main.py: cell 4 of 4")
    assert lines[-2] == f"page: {tmp_path / 'page.html'}"
    assert lines[-1].startswith("main.py ran to its end in ")
    assert (tmp_path / "page.html").exists()


@pytest.mark.spark
def test_an_error_is_one_line_with_its_place_and_the_page_is_there(
    shared_spark, path, tmp_path
) -> None:
    done = run(path, "--html", tmp_path / "page.html")

    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        "dbx-aml: notebook must run to its end: cell 3 of main.py, line 10: "
        "ZeroDivisionError: division by zero"
    )
    assert "Traceback" not in done.output
    assert "division by zero" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-w", "m=1"], "main.py has no ['m']; it has ['n']"),
        (["-w", "n"], "'n' is not NAME=VALUE."),
        (["-w", "=1"], "'=1' is not NAME=VALUE."),
    ],
)
def test_wrong_usage_ends_with_2_before_spark_starts(path, arguments, message, monkeypatch) -> None:
    monkeypatch.setattr(workspace_stub, "local_workspace", None)

    done = run(path, *arguments)

    assert done.exit_code == 2
    assert message in done.stderr


def test_a_file_that_cannot_be_read_ends_with_2(tmp_path) -> None:
    done = run(tmp_path / "absent.py")

    assert done.exit_code == 2
    assert done.stderr.startswith("dbx-aml: notebook must be an existing text file: got '")
