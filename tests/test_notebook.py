"""The notebook runner: what runs here as on a cluster, and what it refuses by name."""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from dbx_aml.errors import NotebookError
from dbx_aml.notebook import read_notebook, run_notebook, widget_names

SEPARATOR = "\n\n# COMMAND ----------\n\n"


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    """Write a notebook of these cells: `notebook("x = 1", "print(x)", name="a.py")`."""

    def write(*cells: str, name: str = "main.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = SEPARATOR.join(textwrap.dedent(cell).strip("\n") for cell in cells)
        path.write_text(f"# Databricks notebook source\n{text}\n", encoding="utf-8")
        return path

    return write


def test_cells_share_their_names_and_exit_gives_the_value(notebook) -> None:
    path = notebook("x = 20", "def twice(n):\n    return n * 2", "dbutils.notebook.exit(twice(x))")

    result = run_notebook(path, spark=None)

    assert result.exit_value == "40"
    assert result.cells_run == 3
    assert result.notebook == path


def test_a_notebook_without_exit_ends_with_no_value(notebook) -> None:
    assert run_notebook(notebook("x = 1"), spark=None).exit_value is None


def test_markdown_is_kept_as_text_and_not_executed(notebook) -> None:
    path = notebook("# MAGIC %md\n# MAGIC # Title\n# MAGIC\n# MAGIC raise", "x = 1")
    seen = []

    result = run_notebook(path, spark=None, on_cell=seen.append)

    assert [(cell.kind, cell.number) for cell in seen] == [("markdown", 1), ("python", 2)]
    assert seen[0].source == "\n# Title\n\nraise"
    assert result.cells_run == 1


def test_run_is_relative_to_the_notebook_that_runs_and_shares_names(notebook) -> None:
    notebook("# MAGIC %run ../shared/names", "b = a + 1", name="jobs/_setup.py")
    notebook("a = 1", name="shared/names.py")
    path = notebook("# MAGIC %run ./jobs/_setup", "dbutils.notebook.exit(f'{a} {b} {a + b}')")

    result = run_notebook(path, spark=None)

    assert result.exit_value == "1 2 3"
    assert result.cells_run == 3


def test_run_of_a_missing_notebook_fails_before_the_first_cell(notebook, capsys) -> None:
    path = notebook("print('started')", "# MAGIC %run ./absent")

    with pytest.raises(NotebookError, match=r"must be an existing file: got '.*absent\.py'"):
        run_notebook(path, spark=None)

    assert capsys.readouterr().out == ""


def test_notebooks_that_run_each_other_are_refused(notebook) -> None:
    notebook("# MAGIC %run ./main", name="other.py")

    with pytest.raises(NotebookError, match=r"circle: got 'main\.py'"):
        read_notebook(notebook("# MAGIC %run ./other"))


@pytest.mark.parametrize(
    "cell",
    [
        "# MAGIC %run ./_setup\n# MAGIC x = 1",
        "# MAGIC %run /Shared/_setup",
        "# MAGIC %run ./a $x=1",
    ],
)
def test_run_must_be_alone_with_a_relative_path(notebook, cell: str) -> None:
    with pytest.raises(NotebookError, match=r"%run must be alone .* in cell 2 of main\.py, line 6"):
        read_notebook(notebook("x = 1", cell))


@pytest.mark.parametrize("magic", ["%sh ls", "%pip install x", "%scala", "%", "text"])
def test_an_unknown_magic_is_named_with_its_cell_before_anything_runs(
    notebook, capsys, magic: str
) -> None:
    path = notebook("print('started')", f"# MAGIC {magic}")

    with pytest.raises(NotebookError) as caught:
        run_notebook(path, spark=None)

    assert str(caught.value) == (
        "notebook magic must be %md, %python, %run or %sql, for its whole cell: "
        f"got {magic.split()[0]!r} in cell 2 of main.py, line 6"
    )
    assert capsys.readouterr().out == ""


def test_a_magic_inside_a_python_cell_is_named(notebook) -> None:
    with pytest.raises(NotebookError, match=r"got '%time y = 2' in cell 1 of main\.py, line 2"):
        read_notebook(notebook("x = 1\n# MAGIC %time y = 2"))


def test_a_python_magic_is_a_python_cell(notebook) -> None:
    path = notebook("# MAGIC %python\n# MAGIC dbutils.notebook.exit('yes')")

    assert run_notebook(path, spark=None).exit_value == "yes"


def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.py"
    path.write_text("x = 1\n")

    with pytest.raises(NotebookError, match=r"must be in source format: got 'plain\.py'"):
        run_notebook(path, spark=None)


def test_exit_inside_a_broad_except_still_ends_the_notebook(notebook, capsys) -> None:
    path = notebook(
        """
        try:
            dbutils.notebook.exit("done")
        except Exception:
            print("caught")
        """,
        "print('went on')",
    )

    assert run_notebook(path, spark=None).exit_value == "done"
    assert capsys.readouterr().out == ""


def test_an_error_names_cell_and_line_of_the_file_and_keeps_its_cause(notebook) -> None:
    path = notebook(
        "x = 1",
        """
        def fail(name):
            raise ValueError(f"no {name}\\nmore")


        fail("such thing")
        """,
    )

    with pytest.raises(NotebookError) as caught:
        run_notebook(path, spark=None)

    # The innermost line of the notebook: the one to look at first.
    assert str(caught.value) == (
        "notebook must run to its end: cell 2 of main.py, line 7: ValueError: no such thing"
    )
    assert isinstance(caught.value.__cause__, ValueError)
    shown = "".join(traceback.format_exception(caught.value))
    assert 'main.py", line 10, in <module>\n    fail("such thing")' in shown


def test_an_error_in_a_notebook_brought_by_run_names_that_file(notebook) -> None:
    notebook("x = 1", "x / 0", name="_setup.py")
    path = notebook("# MAGIC %run ./_setup")

    with pytest.raises(NotebookError, match=r"cell 2 of _setup\.py, line 6: ZeroDivisionError"):
        run_notebook(path, spark=None)


def test_a_syntax_error_is_found_before_the_first_cell_runs(notebook, capsys) -> None:
    path = notebook("print('started')", "y = 1\nx = = 2")

    with pytest.raises(NotebookError, match=r"valid Python: cell 2 of main\.py, line 7: invalid"):
        run_notebook(path, spark=None)

    assert capsys.readouterr().out == ""


def test_a_passed_value_wins_over_a_widgets_default(notebook) -> None:
    path = notebook(
        """
        dbutils.widgets.text("table", "flights")
        dbutils.widgets.text("alpha", "1", "Label")
        dbutils.widgets.combobox("alias", "champion", ["champion"])
        dbutils.widgets.dropdown(name="mode", defaultValue="append", choices=["append", "merge"])
        dbutils.widgets.multiselect("days", "1,2", ["1", "2", "3"])
        """,
        "values = dbutils.widgets.getAll() | {'one': dbutils.widgets.get('table')}",
        "dbutils.widgets.removeAll()",
        "dbutils.notebook.exit(f'{values} {dbutils.widgets.getAll()}')",
    )

    result = run_notebook(path, {"table": "t", "mode": "merge", "alias": "new"}, spark=None)

    assert result.exit_value == (
        "{'table': 't', 'alpha': '1', 'alias': 'new', 'mode': 'merge', 'days': '1,2', 'one': 't'} "
        "{}"
    )


def test_an_empty_value_is_a_value(notebook) -> None:
    path = notebook(
        'dbutils.widgets.text("a", "default")',
        'dbutils.notebook.exit(repr(dbutils.widgets.get("a")))',
    )

    assert run_notebook(path, {"a": ""}, spark=None).exit_value == "''"


def test_a_passed_name_without_a_widget_is_refused_before_anything_runs(notebook, capsys) -> None:
    path = notebook("print('started')", 'dbutils.widgets.text("table", "flights")')

    with pytest.raises(NotebookError) as caught:
        run_notebook(path, {"tabel": "t"}, spark=None)

    assert str(caught.value) == (
        "notebook must define the widgets it is given: main.py has no ['tabel']; it has ['table']"
    )
    assert capsys.readouterr().out == ""


def test_a_passed_name_without_a_widget_is_refused_when_names_are_computed(notebook) -> None:
    path = notebook('for name in ["a", "b"]:\n    dbutils.widgets.text(name, "")')

    assert widget_names(read_notebook(path)) is None
    assert run_notebook(path, {"a": "1"}, spark=None).exit_value is None
    with pytest.raises(NotebookError, match=r"has no \['c'\]; it has \['a', 'b'\]"):
        run_notebook(path, {"c": "1"}, spark=None)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ('dbutils.widgets.get("x")', "widget must be defined before it is read: got 'x'"),
        (
            'dbutils.widgets.dropdown("x", "a", ["a"])',
            r"widget 'x' must be one of \['a'\]: got 'b'",
        ),
        (
            'dbutils.widgets.multiselect("x", "a", ["a", "c"])',
            r"widget 'x' must be one of \['a', 'c'\]: got 'b'",
        ),
    ],
)
def test_a_wrong_widget_value_is_an_error_with_its_cell(notebook, cell, message) -> None:
    path = notebook(cell, 'dbutils.widgets.text("x", "")')

    with pytest.raises(NotebookError, match=rf"cell 1 of main\.py, line 2: .*{message}"):
        run_notebook(path, {"x": "b"}, spark=None)


def test_what_the_stub_lacks_is_an_error_that_names_it(notebook) -> None:
    with pytest.raises(NotebookError, match=r"AttributeError: .*'secrets'"):
        run_notebook(notebook('dbutils.secrets.get("scope", "key")'), spark=None)


def test_display_prints_a_small_table_and_says_when_there_is_more(notebook, capsys) -> None:
    path = notebook(
        "import pandas as pd",
        "display(pd.DataFrame({'month': [10, 11], 'rows': [3, 4]}))",
        "display(pd.DataFrame({'n': range(11)}))",
        "display('text')",
    )

    run_notebook(path, spark=None)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["month", "rows"]
    assert [line.split() for line in lines[1:3]] == [["10", "3"], ["11", "4"]]
    assert [line.strip() for line in lines[3:]] == [
        *["n", *map(str, range(10))],
        "(the first 10 rows)",
        "text",
    ]


def test_the_value_of_a_last_expression_is_printed(notebook, capsys) -> None:
    run_notebook(notebook("x = 2\nx * 21", "x = 5", "None"), spark=None)

    assert capsys.readouterr().out == "42\n"


@pytest.mark.spark
def test_display_and_sql_show_rows_of_spark(notebook, capsys, spark) -> None:
    path = notebook(
        "display(spark.range(12).selectExpr('id', 'id * 2 as twice'))",
        "# MAGIC %sql\n# MAGIC select 'a' as letter,\n# MAGIC   1 as digit;",
        "dbutils.notebook.exit(_sqldf.first().letter)",
    )

    result = run_notebook(path, spark=spark)

    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[:3] == [["id", "twice"], ["0", "0"], ["1", "2"]]
    assert shown[10:] == [
        ["9", "18"],
        ["(the", "first", "10", "rows)"],
        ["letter", "digit"],
        ["a", "1"],
    ]
    assert result.exit_value == "a"
