"""The notebook runner: cells, widgets, `dbutils`, outputs and errors, as on a cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dbx_aml._common.errors import ArgumentError, NotebookError
from dbx_aml.local.notebook import process
from dbx_aml.local.notebook.databricks_paths import Files
from dbx_aml.local.notebook.dbutils_stub import NoSparkContext
from dbx_aml.local.notebook.run import run_notebook
from dbx_aml.local.notebook.shell import _split_statements, _substitute_widgets
from dbx_aml.local.notebook.source import read_notebook
from tests.support.notebook import write_notebook


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    """Write a notebook of these cells: `notebook("x = 1", "print(x)", name="a.py")`."""

    def write(*cells: str, name: str = "main.py") -> Path:
        return write_notebook(tmp_path / name, *cells)

    return write


def test_cells_share_their_names_and_exit_gives_the_value(notebook) -> None:
    path = notebook("x = 20", "def twice(n):\n    return n * 2", "dbutils.notebook.exit(twice(x))")

    result = run_notebook(path, spark=None)

    assert result.exit_value == "40"
    assert [run.cell.number for run in result.runs] == [1, 2, 3]
    assert result.notebook == path


def test_a_notebook_without_exit_ends_with_no_value(notebook) -> None:
    assert run_notebook(notebook("x = 1"), spark=None).exit_value is None


def test_markdown_is_kept_as_text_and_not_executed(notebook) -> None:
    path = notebook("# MAGIC %md\n# MAGIC # Title\n# MAGIC\n# MAGIC raise", "x = 1")
    seen = []

    result = run_notebook(path, spark=None, on_cell=lambda run: seen.append(run.cell.number))

    assert [(run.cell.kind, run.cell.number) for run in result.runs] == [
        ("markdown", 1),
        ("python", 2),
    ]
    assert result.runs[0].cell.source == "\n# Title\n\nraise"
    assert seen == [2, 2], "once at the start and once at the end of the cell"


def test_run_is_relative_to_the_notebook_that_runs_and_shares_names(notebook) -> None:
    notebook("# MAGIC %run ../shared/names", "b = a + 1", name="jobs/_setup.py")
    notebook("a = 1", name="shared/names.py")
    path = notebook("# MAGIC %run ./jobs/_setup", "dbutils.notebook.exit(f'{a} {b} {a + b}')")

    result = run_notebook(path, spark=None)

    assert result.exit_value == "1 2 3"


def test_run_of_a_missing_notebook_fails_before_the_first_cell(notebook, capsys) -> None:
    path = notebook("print('started')", "# MAGIC %run ./absent")

    with pytest.raises(NotebookError, match=r"must be an existing text file: got '.*absent\.py'"):
        run_notebook(path, spark=None)

    assert capsys.readouterr().out == ""


def test_notebooks_that_run_each_other_are_refused(notebook) -> None:
    notebook("# MAGIC %run ./main", name="other.py")

    with pytest.raises(NotebookError, match=r"circle: got 'main\.py'"):
        read_notebook(notebook("# MAGIC %run ./other"))


def test_an_absolute_run_path_is_a_file_of_the_local_workspace(notebook, tmp_path) -> None:
    notebook("a = 1", name="root/Workspace/Shared/team/names.py")
    path = notebook(
        "# MAGIC %run /Shared/team/names",
        "# MAGIC %run /Workspace/Shared/team/names",
        "dbutils.notebook.exit(a)",
    )

    assert run_notebook(path, spark=None, files=Files(tmp_path / "root")).exit_value == "1"
    with pytest.raises(NotebookError, match=r"got '.*/other/Workspace/Shared/team/names\.py'"):
        run_notebook(path, spark=None, files=Files(tmp_path / "other"))


def test_an_absolute_run_path_of_an_existing_file_needs_no_workspace(notebook) -> None:
    names = notebook("a = 1", name="names.py")
    path = notebook(f"# MAGIC %run {names.with_suffix('')}", "dbutils.notebook.exit(a)")

    assert run_notebook(path, spark=None).exit_value == "1"


def test_values_of_a_run_cell_are_values_of_the_widgets_that_it_makes(notebook) -> None:
    notebook(
        "dbutils.widgets.text('table', 'default')\ndbutils.widgets.text('other', 'default')",
        name="names.py",
    )
    path = notebook(
        """# MAGIC %run ./names $table="my flights" $other='b'""",
        "seen = dbutils.widgets.getAll()",
        "dbutils.widgets.text('table', 'mine')",
        "dbutils.notebook.exit(f'{seen} {dbutils.widgets.get(\"table\")}')",
    )

    result = run_notebook(path, {"other": "passed"}, spark=None)

    assert result.exit_value == "{'other': 'b', 'table': 'my flights'} my flights"


@pytest.mark.parametrize(
    "cell",
    [
        "# MAGIC %run ./_setup\n# MAGIC x = 1",
        "# MAGIC %run ./a x=1",
        "# MAGIC %run",
        "# MAGIC %run './a",
    ],
)
def test_run_must_be_alone_with_a_path_and_values(notebook, cell: str) -> None:
    with pytest.raises(NotebookError, match=r"%run must be alone .* in cell 2 of main\.py, line 6"):
        read_notebook(notebook("x = 1", cell))


@pytest.mark.parametrize("magic", ["%scala", "%r", "%fs ls /", "%", "text"])
def test_an_unknown_magic_is_named_with_its_cell_before_anything_runs(
    notebook, capsys, magic: str
) -> None:
    path = notebook("print('started')", f"# MAGIC {magic}")

    with pytest.raises(NotebookError) as caught:
        run_notebook(path, spark=None)

    assert str(caught.value) == (
        "notebook magic must be one of IPython, or %md, %md-sandbox, %python, %run, %sh, %sql: "
        f"got {magic.split()[0]!r} in cell 2 of main.py, line 6"
    )
    assert capsys.readouterr().out == ""


def test_a_line_without_a_mark_in_a_cell_of_another_language_is_named(notebook) -> None:
    with pytest.raises(NotebookError, match=r"of a %sql cell must begin .* got 'x = 1' in cell 1"):
        read_notebook(notebook("# MAGIC %sql\nx = 1"))


def test_magics_of_ipython_work(notebook, capsys) -> None:
    path = notebook(
        "# MAGIC %env NAME=value",
        "# MAGIC %%time\n# MAGIC x = 2",
        "y = 1\n# MAGIC %time z = 3\n!echo from the shell",
        "import os\ndbutils.notebook.exit(f\"{os.environ['NAME']} {x} {y} {z}\")",
    )

    assert run_notebook(path, spark=None).exit_value == "value 2 1 3"
    out = capsys.readouterr().out
    assert out.count("Wall time:") == 2
    assert "from the shell" in out


def test_a_magic_that_does_not_exist_is_an_error_of_its_cell(notebook) -> None:
    with pytest.raises(NotebookError, match=r"cell 1 of main\.py, line 2: UsageError: .*no_such"):
        run_notebook(notebook("# MAGIC %no_such_magic"), spark=None)


def test_a_python_magic_is_a_python_cell(notebook) -> None:
    path = notebook("# MAGIC %python\n# MAGIC dbutils.notebook.exit('yes')")

    assert run_notebook(path, spark=None).exit_value == "yes"


def test_a_file_in_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.py"
    path.write_text("x = 1\n")

    with pytest.raises(ArgumentError, match=r"must be in source format: got 'plain\.py'"):
        run_notebook(path, spark=None)


@pytest.mark.parametrize("name", ["absent.py", "folder.py", "picture.py"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "picture.py").write_bytes(b"\xff\xd8")

    with pytest.raises(ArgumentError, match=rf"must be an existing text file: got '.*{name}'"):
        run_notebook(tmp_path / name, spark=None)


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


def test_an_error_names_cell_and_line_of_the_file_and_notes_its_traceback(notebook) -> None:
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
    (trace,) = caught.value.__notes__
    assert 'main.py", line 10, in <module>\n    fail("such thing")' in trace
    assert trace.endswith("ValueError: no such thing\nmore\n")
    assert "IPython" not in trace


def test_an_error_in_an_included_notebook_names_that_file(notebook) -> None:
    notebook("x = 1", "x / 0", name="_setup.py")
    path = notebook("# MAGIC %run ./_setup")

    with pytest.raises(NotebookError, match=r"cell 2 of _setup\.py, line 6: ZeroDivisionError"):
        run_notebook(path, spark=None)


def test_a_syntax_error_is_an_error_of_its_cell(notebook, capsys) -> None:
    path = notebook("print('started')", "# MAGIC %python\n# MAGIC\n# MAGIC y = 1\n# MAGIC x = = 2")

    with pytest.raises(NotebookError, match=r"cell 2 of main\.py, line 9: SyntaxError: invalid"):
        run_notebook(path, spark=None)

    assert capsys.readouterr().out == "started\n"


def test_a_passed_value_overrides_a_widgets_default(notebook) -> None:
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
        "{'table': 't', 'mode': 'merge', 'alias': 'new', 'alpha': '1', 'days': '1,2', 'one': 't'} "
        "{}"
    )


def test_an_empty_value_is_a_value(notebook) -> None:
    path = notebook(
        'dbutils.widgets.text("a", "default")',
        'dbutils.notebook.exit(repr(dbutils.widgets.get("a")))',
    )

    assert run_notebook(path, {"a": ""}, spark=None).exit_value == "''"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ('dbutils.widgets.get("y")', "widget must be defined before it is read: got 'y'"),
        ('dbutils.widgets.text("n", 5)', "default of widget 'n' must be a text: got 5; use '5'"),
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
def test_an_invalid_widget_value_is_an_error_with_its_cell(notebook, cell, message) -> None:
    path = notebook(cell, 'dbutils.widgets.text("x", "")')

    with pytest.raises(NotebookError, match=rf"cell 1 of main\.py, line 2: .*{message}"):
        run_notebook(path, {"x": "b"}, spark=None)


def test_a_parameter_is_readable_without_a_widget(notebook) -> None:
    path = notebook(
        "values = [dbutils.widgets.get('day'), getArgument('day'), dbutils.widgets.getAll()]",
        "dbutils.notebook.exit(values)",
    )

    result = run_notebook(path, {"day": "2026-11-26"}, spark=None)

    assert result.exit_value == "['2026-11-26', '2026-11-26', {'day': '2026-11-26'}]"


def test_a_widget_that_exists_keeps_its_value_until_it_is_removed(notebook) -> None:
    path = notebook(
        "dbutils.widgets.text('a', '1')",
        "dbutils.widgets.text('a', '2')\nfirst = dbutils.widgets.get('a')",
        "dbutils.widgets.remove('a')\ndbutils.widgets.text('a', '3')",
        "dbutils.notebook.exit(first + dbutils.widgets.get('a'))",
    )

    assert run_notebook(path, spark=None).exit_value == "13"


def test_getargument_and_remove_are_as_in_databricks(notebook) -> None:
    path = notebook(
        """
        dbutils.widgets.text("a", "1")
        dbutils.widgets.text("b", "2")
        dbutils.widgets.remove("a")
        """,
        'values = [getArgument("b"), dbutils.widgets.getArgument("a", "gone")]',
        "dbutils.notebook.exit(f'{values} {dbutils.widgets.getAll()}')",
    )

    assert run_notebook(path, spark=None).exit_value == "['2', 'gone'] {'b': '2'}"


@pytest.mark.slow
def test_a_started_notebook_has_its_own_process_and_widgets(notebook, tmp_path) -> None:
    notebook(
        "dbutils.widgets.text('n', '0')",
        "import os, helper\nos.environ['NAME'] = helper.WHO\nx = int(dbutils.widgets.get('n')) * 2",
        "dbutils.notebook.exit(x)",
        name="jobs/double.py",
    )
    (tmp_path / "helper.py").write_text("WHO = 'parent'")
    (tmp_path / "jobs" / "helper.py").write_text("WHO = 'child'")
    path = notebook(
        "import os, helper\nx = 1",
        "got = dbutils.notebook.run('./jobs/double', 60, {'n': '21', 'unknown': 'is left out'})",
        "names = [helper.WHO, os.environ.get('NAME'), dbutils.widgets.getAll()]",
        "dbutils.notebook.exit(f'{got!r} {x} {names}')",
    )

    assert run_notebook(path, spark=None).exit_value == "'42' 1 ['parent', None, {}]"


@pytest.mark.slow
def test_an_error_in_a_started_notebook_names_both_cells_in_one_line(notebook) -> None:
    notebook("1 / 0", name="child.py")
    path = notebook("x = 1", "dbutils.notebook.run('child', 0)")

    with pytest.raises(NotebookError) as caught:
        run_notebook(path, spark=None)

    assert str(caught.value) == (
        "notebook must run to its end: cell 2 of main.py, line 6: cell 1 of child.py, line 2: "
        "ZeroDivisionError: division by zero"
    )


@pytest.mark.slow
def test_a_started_notebook_is_stopped_at_its_timeout(notebook) -> None:
    notebook("import time; time.sleep(60)", name="child.py")
    path = notebook("dbutils.notebook.run('child', 1)")

    start = time.monotonic()
    with pytest.raises(NotebookError, match=r"notebook child\.py must end within its timeout"):
        run_notebook(path, spark=None)

    assert time.monotonic() - start < 30


def test_a_process_that_ends_in_a_cell_is_an_error_of_that_cell(notebook) -> None:
    with pytest.raises(NotebookError, match=r"cell 1 .* must not end in a cell: .* status 3"):
        run_notebook(notebook("print('here')\nimport os; os._exit(3)"), spark=None)


def test_notebooks_are_named_without_py(notebook) -> None:
    notebook("x = 1", name="b.py")
    expected = r"must be named without \.py: got '\./b\.py'; use '\./b'"

    with pytest.raises(NotebookError, match=expected):
        run_notebook(notebook("# MAGIC %run ./b.py"), spark=None)
    with pytest.raises(NotebookError, match=expected):
        run_notebook(notebook("dbutils.notebook.run('./b.py', 0)"), spark=None)


def test_the_working_folder_is_the_notebooks(notebook, tmp_path) -> None:
    (tmp_path / "data.csv").write_text("a,b")
    path = notebook("dbutils.notebook.exit(open('data.csv').read())")

    assert run_notebook(path, spark=None).exit_value == "a,b"
    assert Path.cwd() != tmp_path


def test_classes_and_functions_of_a_notebook_can_be_pickled(notebook) -> None:
    path = notebook(
        """
        class Prep:
            n = 3

        def double(x):
            return 2 * x
        """,
        "import pickle\nprep, function = pickle.loads(pickle.dumps((Prep(), double)))",
        "dbutils.notebook.exit(function(prep.n))",
    )

    assert run_notebook(path, spark=None).exit_value == "6"


def test_await_and_async_for_work_at_the_top_of_a_cell(notebook) -> None:
    path = notebook(
        """
        import asyncio

        async def numbers():
            for n in range(3):
                await asyncio.sleep(0)
                yield n
        """,
        "total = 0\nasync for n in numbers():\n    total += n",
        "value = await asyncio.sleep(0, total)",
        "dbutils.notebook.exit(value)",
    )

    assert run_notebook(path, spark=None).exit_value == "3"


def test_a_file_is_read_as_python_reads_it(tmp_path) -> None:
    text = "# Databricks notebook source\r\nx = 'a\u2028b\u0085c\x0cd'\r\n1 / 0\r\n"
    path = tmp_path / "main.py"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())

    assert read_notebook(path)[0].source == "x = 'a\u2028b\u0085c\x0cd'\n1 / 0"
    with pytest.raises(NotebookError, match=r"cell 1 of main\.py, line 3: ZeroDivisionError"):
        run_notebook(path, spark=None)


@pytest.mark.slow
def test_python_finds_the_files_of_dbutils_fs_by_their_names(notebook, tmp_path) -> None:
    path = notebook(
        """
        import os, shutil
        from pathlib import Path
        import pandas as pd
        folder = "/Volumes/main/ml/files"
        dbutils.fs.put(f"{folder}/a.csv", "n\\n1\\n", True)
        dbutils.fs.put("dbfs:/tmp/b.txt", "dbfs", True)
        frame = pd.read_csv(f"{folder}/a.csv")
        frame.to_parquet(f"{folder}/a.parquet")
        Path(folder, "new", "folder").mkdir(parents=True)
        shutil.copy(f"{folder}/a.csv", f"{folder}/new/c.csv")
        os.replace(f"{folder}/new/c.csv", f"{folder}/d.csv")
        """,
        """
        texts = [open(f"{folder}/d.csv").read(), Path("/dbfs/tmp/b.txt").read_text()]
        names = sorted(os.listdir(folder))
        seen = [texts, names, os.path.exists("/Volumes/main/ml/files/a.csv")]
        seen.append(len(pd.read_parquet(f"{folder}/a.parquet")))
        shutil.rmtree(f"{folder}/new")
        dbutils.notebook.exit([*seen, [f.name for f in dbutils.fs.ls(folder)]])
        """,
    )

    value = run_notebook(path, spark=None, files=Files(tmp_path / "root")).exit_value

    files = ["a.csv", "a.parquet", "d.csv"]
    assert value == str([["n\n1\n", "dbfs"], [*files, "new"], True, 1, files])


def test_a_notebook_imports_the_modules_beside_it(notebook, tmp_path) -> None:
    (tmp_path / "beside_it.py").write_text("x = 41")

    run_notebook(notebook("import beside_it", "assert beside_it.x == 41"), spark=None)


def test_a_notebook_with_the_name_of_a_module_of_python_does_not_keep_another_from_starting(
    notebook,
) -> None:
    notebook("raise ValueError", name="logging.py")
    notebook("dbutils.library.restartPython()", "dbutils.notebook.exit('2')", name="child.py")
    path = notebook("dbutils.notebook.exit(dbutils.notebook.run('./child'))")

    assert run_notebook(path, spark=None).exit_value == "2"


def test_code_of_a_package_finds_dbutils_in_the_main_module(notebook, monkeypatch) -> None:
    monkeypatch.setenv("DBX_AML_SECRET_ML_KEY", "s3cret")
    path = notebook(
        "from dbx_aml.azure.credential_sources import resolve_secret",
        "from dbx_aml.link.secret_reference import SecretRef",
        "assert resolve_secret(SecretRef.parse('ml/key')) == 's3cret'",
    )

    run_notebook(path, spark=None)


def test_sys_exit_in_a_cell_is_an_error_of_that_cell(notebook) -> None:
    with pytest.raises(NotebookError, match=r"cell 1 of main\.py, line 2: SystemExit: 3"):
        run_notebook(notebook("import sys; sys.exit(3)"), spark=None)


def test_a_shell_cell_runs_in_the_folder_of_the_notebook(notebook, capfd, tmp_path) -> None:
    path = notebook("# MAGIC %sh\n# MAGIC pwd\n# MAGIC exit 3", "print('went on')")

    run_notebook(path, spark=None)

    out, err = capfd.readouterr()
    assert out.splitlines() == [str(tmp_path), "went on"]
    assert err == "exit status 3\n"


def test_a_strict_shell_cell_fails_the_notebook(notebook) -> None:
    with pytest.raises(NotebookError, match="shell script must end with status 0: got 3"):
        run_notebook(notebook("# MAGIC %sh -e\n# MAGIC exit 3"), spark=None)


@pytest.mark.slow
def test_each_line_of_a_pip_cell_is_printed_and_runs_only_with_run_pip_cells(
    notebook, capfd
) -> None:
    path = notebook(
        "# MAGIC %pip --version # of this Python\n# MAGIC %pip --version\n# MAGIC x = 1"
    )

    run_notebook(path, spark=None)
    assert capfd.readouterr().out.splitlines() == [
        "not run here: pip --version # of this Python",
        "not run here: pip --version",
    ]
    run_notebook(path, spark=None, run_pip_cells=True)
    version = f"python {sys.version_info.major}.{sys.version_info.minor}"
    assert capfd.readouterr().out.count(version) == 2


def test_a_pip_cell_that_fails_fails_the_notebook(notebook) -> None:
    with pytest.raises(NotebookError, match=r"'pip no-such-command' must end with status 0: got 1"):
        run_notebook(notebook("# MAGIC %pip no-such-command"), spark=None, run_pip_cells=True)


@pytest.mark.slow
def test_a_restart_of_python_is_a_new_process_and_keeps_widgets(notebook, tmp_path) -> None:
    path = notebook(
        "import beside_it\nx = beside_it.x\ndbutils.widgets.text('a', '1')",
        "open('beside_it.py', 'w').write('x = 2');",
        "dbutils.library.restartPython()\nprint('never')",
        "gone = 'x' not in globals()\nfrom beside_it import x",
        "dbutils.notebook.exit(f\"{gone} {x} {dbutils.widgets.get('a')}\")",
    )
    (tmp_path / "beside_it.py").write_text("x = 10")

    assert run_notebook(path, spark=None).exit_value == "True 2 1"


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("dbutils.data.summarize(1)", "dbutils.data is not in this runner"),
        ("dbutils.fs.mount('a', 'b')", "dbutils.fs.mount is not in this runner"),
        ("dbutils.secrets.listScopes()", "dbutils.secrets.listScopes is not in this runner"),
        ("dbutils.jobs.submit", "dbutils.jobs.submit is not in this runner"),
    ],
)
def test_a_missing_member_of_dbutils_is_an_error_with_its_name(
    notebook, cell: str, name: str
) -> None:
    with pytest.raises(NotebookError, match=rf"line 2: AttributeError: {name}; it has \["):
        run_notebook(notebook(cell), spark=None)


def test_a_task_value_must_be_json_and_is_discarded(notebook) -> None:
    run_notebook(notebook("dbutils.jobs.taskValues.set('model_uri', 'runs:/1/m')"), spark=None)
    with pytest.raises(NotebookError, match="object is not JSON serializable"):
        run_notebook(notebook("dbutils.jobs.taskValues.set('a', object())"), spark=None)


def test_a_task_value_outside_of_a_job_is_the_debug_value(notebook) -> None:
    path = notebook(
        "value = dbutils.jobs.taskValues.get('train', 'uri', debugValue='x')",
        """
        try:
            dbutils.jobs.taskValues.get(taskKey="train", key="uri", default="d")
        except TypeError as err:
            dbutils.notebook.exit(f"{value} {err}")
        """,
    )

    value = run_notebook(path, spark=None).exit_value
    assert value is not None
    assert value.startswith("x Must pass debugValue when calling get outside of a job context.")


def test_a_missing_secret_is_an_error_that_names_its_variable(notebook) -> None:
    with pytest.raises(NotebookError, match=r"none for 'ml/key-1'; set DBX_AML_SECRET_ML_KEY_1$"):
        run_notebook(notebook('dbutils.secrets.get("ml", "key-1")'), spark=None)


def test_a_secret_is_readable_for_code_and_redacted_in_all_output(
    notebook, capsys, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("DBX_AML_SECRET_ML_KEY", "s<cret")
    page = tmp_path / "page.html"
    path = notebook(
        """
        import sys
        import pandas as pd
        secret = dbutils.secrets.get(scope="ml", key="key")
        assert len(secret) == 6
        assert dbutils.secrets.getBytes("ml", "key") == secret.encode()
        print("printed", secret)
        for letter in secret:
            print(letter, end="")
        print("to stderr", secret, file=sys.stderr)
        display(pd.DataFrame({"column": [secret]}))
        displayHTML(f"<b>{secret}</b>" + pd.DataFrame({"column": [secret]}).to_html())
        """,
        "secret",
        "dbutils.notebook.exit(secret)",
    )

    result = run_notebook(path, spark=None, html=page)

    out, err = capsys.readouterr()
    assert "printed [REDACTED]\n" in out
    assert err == "to stderr [REDACTED]\n"
    assert result.exit_value == "[REDACTED]"
    shown = page.read_text()
    assert shown.count("[REDACTED]") >= 6
    for form in ("s<cret", "s&lt;cret", "s&amp;lt;cret"):
        assert form not in out.replace("\ns<cret", ""), "only letter by letter on a terminal"
        assert form not in shown


def test_a_secret_in_an_error_is_redacted(notebook, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DBX_AML_SECRET_ML_KEY", "hunter2")
    path = notebook("raise ValueError('wrong: ' + dbutils.secrets.get('ml', 'key'))")

    with pytest.raises(NotebookError, match=r"ValueError: wrong: \[REDACTED\]$"):
        run_notebook(path, spark=None, html=tmp_path / "page.html")

    assert "hunter2" not in (tmp_path / "page.html").read_text()


def test_display_prints_a_small_table_and_says_when_there_is_more(notebook, capsys) -> None:
    path = notebook(
        "import pandas as pd",
        "display(pd.DataFrame({'month': [10, 11], 'rows': [3, None], 'word': ['a', None]}))",
        "display(pd.DataFrame({'n': range(11)}))",
        "display('text')",
    )

    run_notebook(path, spark=None)

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == [["month", "rows", "word"], ["10", "3", "a"], ["11", "nan", "null"]]
    assert lines[3:] == [
        *[["n"], *([str(n)] for n in range(10))],
        ["(the", "first", "10", "rows)"],
        ["'text'"],
    ]


def test_a_terminal_shows_a_long_id_whole_and_a_long_sentence_in_part(notebook, capsys) -> None:
    path = notebook(
        "import pandas as pd",
        "display(pd.DataFrame({'sha256': ['a' * 64], 'reason': ['not a number, ' * 10]}))",
    )

    run_notebook(path, spark=None)

    row = capsys.readouterr().out.splitlines()[1]
    assert "a" * 64 in row
    assert row.endswith("...")
    assert len(row) < 64 + 70


def test_the_value_of_a_last_expression_is_printed(notebook, capsys) -> None:
    run_notebook(notebook("x = 2\nx * 21", "x = 5", "None", "x;"), spark=None)

    assert capsys.readouterr().out == "42\n"


@pytest.mark.slow
def test_figures_are_shown_once_in_their_cell(notebook) -> None:
    path = notebook(
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
        "print('before')\nplt.plot([1, 2])\nplt.show()\nprint('after')",
        "figure, axes = plt.subplots()\ndisplay(figure)",
        "x = plt.get_fignums()\nx",
    )

    result = run_notebook(path, spark=None)

    shown = [
        [output.get("text") or output["data"] for output in run.outputs] for run in result.runs
    ]
    picture = {"image/png", "text/plain"}
    assert set(shown[0][0]) == set(shown[1][1]) == set(shown[2][0]) == picture
    assert [len(outputs) for outputs in shown] == [1, 3, 1, 1]
    assert shown[0][0]["image/png"].startswith("iVBORw0KGgo")
    assert shown[3][0] == {"text/plain": "[]"}


@pytest.mark.spark
@pytest.mark.slow
def test_display_and_sql_show_rows_of_spark(notebook, capsys, spark) -> None:
    path = notebook(
        "display(spark.range(12).selectExpr('id', 'id * 2 as twice'))",
        """
        # MAGIC %sql
        # MAGIC -- two statements; the last one is shown
        # MAGIC create or replace temp view letters as select 'a;b' as letter;
        # MAGIC select letter,
        # MAGIC   1 as digit from letters;
        # MAGIC -- end
        """,
        "spark.createDataFrame([(1,)], 'n int').display()",
        "from pyspark.sql import SparkSession\nassert SparkSession.builder.getOrCreate() is spark",
        "dbutils.notebook.exit(f'{_sqldf.first().letter} {sc.defaultParallelism > 0}')",
    )

    result = run_notebook(path, spark=spark)

    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[:3] == [["id", "twice"], ["0", "0"], ["1", "2"]]
    assert shown[10:] == [
        ["9", "18"],
        ["(the", "first", "10", "rows)"],
        ["letter", "digit"],
        ["a;b", "1"],
        ["n"],
        ["1"],
    ]
    assert result.exit_value == "a;b True"
    assert not spark.catalog.tableExists("letters"), "views are the notebook's own"


@pytest.mark.spark
@pytest.mark.slow
def test_sql_has_the_values_of_widgets(notebook, spark) -> None:
    path = notebook(
        """dbutils.widgets.text("word", "it's")\ndbutils.widgets.text("n", "3")""",
        "# MAGIC %sql select :word as word, ':word' as same, ${n} + 1 as n, 1::string as cast",
        "dbutils.notebook.exit(list(_sqldf.first()))",
    )

    assert run_notebook(path, spark=spark).exit_value == """["it's", ':word', 4, '1']"""


def test_sql_is_split_and_gets_values_only_outside_of_its_strings() -> None:
    cell = r"""
        -- it's :n
        select '\\' as a, ':n; it''s' as b, "it's" as c;
        select r'C:\' as a, :n as b, `it's` as c;
        -- only a comment; it's one
    """

    statements = [statement.split("\n")[-1].strip() for statement in _split_statements(cell)]

    assert [_substitute_widgets(statement, {"n": "it's"}) for statement in statements] == [
        r"""select '\\' as a, ':n; it''s' as b, "it's" as c""",
        r"""select r'C:\' as a, 'it\'s' as b, `it's` as c""",
    ]


def test_sql_that_creates_widgets_is_an_error(notebook) -> None:
    path = notebook('# MAGIC %sql\n# MAGIC create widget text x default "1"')

    with pytest.raises(NotebookError, match="widgets must be made in Python here"):
        run_notebook(path, spark=None)


def test_sc_under_spark_connect_is_an_error() -> None:
    with pytest.raises(AttributeError, match=r"sc\.parallelize is missing under Spark Connect"):
        NoSparkContext().parallelize([1])


@pytest.mark.spark
@pytest.mark.slow
def test_the_callers_session_works_after_a_notebook(notebook, spark, tmp_path) -> None:
    """Python functions that the JVM calls, and the default session, are the caller's again."""

    def count_stream(name: str) -> int:
        rows = []
        stream = spark.readStream.format("delta").load(str(tmp_path / "rows"))
        writer = stream.writeStream.foreachBatch(lambda frame, _: rows.append(frame.count()))
        checkpoint = str(tmp_path / name)
        writer.option("checkpointLocation", checkpoint).trigger(
            availableNow=True
        ).start().awaitTermination()
        return sum(rows)

    spark.range(3).write.format("delta").save(str(tmp_path / "rows"))
    assert count_stream("before") == 3
    path = notebook(
        f"""
        rows = []
        stream = spark.readStream.format("delta").load("{tmp_path}/rows")
        writer = stream.writeStream.foreachBatch(lambda frame, _: rows.append(frame.count()))
        writer = writer.option("checkpointLocation", "{tmp_path}/in").trigger(availableNow=True)
        writer.start().awaitTermination()
        dbutils.notebook.exit(sum(rows))
        """
    )

    assert run_notebook(path, spark=spark).exit_value == "3"
    assert count_stream("after") == 3


def test_a_notebook_leaves_no_temporary_folder(notebook, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    assert run_notebook(notebook("x = 1"), spark=None).error is None
    with pytest.raises(NotebookError, match="ValueError"):
        run_notebook(notebook("raise ValueError"), spark=None)
    assert list(folder.iterdir()) == []


def test_a_print_of_something_else_than_text_is_an_error_of_its_cell(notebook) -> None:
    with pytest.raises(NotebookError, match=r"TypeError: write\(\) argument must be str, not int"):
        run_notebook(notebook("import sys\nsys.stdout.write(1)"), spark=None)


def test_processes_that_a_cell_forks_print_to_the_terminal_and_cannot_disturb_the_notebook(
    notebook, capfd, monkeypatch
) -> None:
    monkeypatch.setenv("DBX_AML_SECRET_ML_KEY", "s3cret")
    path = notebook(
        """
        import multiprocessing
        key = dbutils.secrets.get("ml", "key")
        def work(number):
            print(f"{number} {key} {'x' * 50_000}")
            return number
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(sum(pool.map(work, range(20))))
        """
    )

    result = run_notebook(path, spark=None)

    assert [output["text"] for output in result.runs[0].outputs] == ["190\n"]
    out = capfd.readouterr().out
    assert out.count("[REDACTED] xxx") == 20
    assert "s3cret" not in out


def test_a_fork_can_print_while_a_thread_prints(notebook, capfd) -> None:
    path = notebook(
        """
        import multiprocessing, sys
        with sys.stdout._send.__self__._lock:  # as another thread holds it while it prints
            fork = multiprocessing.get_context("fork").Process(target=print, args=("from a fork",))
            fork.start()
            fork.join(20)
        dbutils.notebook.exit(str(fork.exitcode))
        """
    )

    assert run_notebook(path, spark=None).exit_value == "0"
    assert "from a fork\n" in capfd.readouterr().out


def test_a_notebook_whose_process_is_killed_ends_while_a_process_that_it_has_forked_lives(
    notebook,
) -> None:
    path = notebook(
        """
        import multiprocessing, os, time
        fork = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        fork.start()
        os.kill(os.getpid(), 9)
        """
    )
    start = time.monotonic()

    with pytest.raises(NotebookError, match="it ended with status -9"):
        run_notebook(path, spark=None)

    assert time.monotonic() - start < 30


def test_a_thread_that_a_notebook_leaves_cannot_keep_its_process(
    notebook, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(process, "_END_TIMEOUT_S", 0.5)
    path = notebook(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()",
        "dbutils.notebook.exit('done')",
    )
    start = time.monotonic()

    assert run_notebook(path, spark=None).exit_value == "done"
    assert time.monotonic() - start < 30
    assert "let the notebook end its threads and processes" in caplog.text
