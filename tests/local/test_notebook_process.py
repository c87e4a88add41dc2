"""A notebook's process that is started before its notebook."""

import os

import pytest

from dbx_aml._common.errors import NotebookError
from dbx_aml.local.notebook.process import NotebookProcess
from dbx_aml.local.notebook.run import run_notebook
from tests.support.notebook import write_notebook

CELL = """
import os, sys
names = [name for name in ("colorsys", "nturl2path") if name in sys.modules]
dbutils.notebook.exit(f"{os.environ['TEAM']} {os.path.basename(os.getcwd())} {names}")
"""


def test_it_has_its_libraries_and_the_variables_and_folder_of_its_notebook(
    tmp_path, monkeypatch
) -> None:
    path = write_notebook(tmp_path / "reports" / "n.py", CELL)
    process = NotebookProcess(["colorsys"])
    monkeypatch.setenv("TEAM", "red")
    result = run_notebook(path, spark=None, process=process)
    assert result.exit_value == "red reports ['colorsys']"
    assert process.stop() == 0


def test_ctrl_c_ends_the_notebook_that_runs_and_not_the_process_that_waits(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("TEAM", "red")
    waiting = NotebookProcess()
    interrupts = f"import os; os.kill({waiting._process.pid}, 2)"  # SIGINT
    run_notebook(write_notebook(tmp_path / "n.py", interrupts), spark=None)
    path = write_notebook(tmp_path / "m.py", "import os; os.kill(os.getpid(), 2)")
    with pytest.raises(NotebookError, match="KeyboardInterrupt"):
        run_notebook(path, spark=None, process=waiting)


def test_without_a_notebook_it_ends_with_its_connection() -> None:
    process = NotebookProcess()
    assert process.stop() == 0
    assert not os.path.exists(f"/proc/{process._process.pid}")


def test_a_library_that_is_missing_is_named_as_the_cause(tmp_path, capfd) -> None:
    path = write_notebook(tmp_path / "n.py", "1")
    with pytest.raises(NotebookError, match="must start: it ended with status 1"):
        run_notebook(path, spark=None, process=NotebookProcess(["no_such_library"]))
    assert "No module named 'no_such_library'" in capfd.readouterr().err
