"""`dbutils.fs` on this machine: all paths of a cluster are below one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbx_aml._common.errors import NotebookError
from dbx_aml.local.notebook.databricks_paths import Files
from dbx_aml.local.notebook.run import run_notebook
from tests.support.notebook import write_notebook


@pytest.fixture
def fs(tmp_path: Path) -> Files:
    return Files(tmp_path / "root")


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("dbfs:/a/b", "dbfs/a/b"),
        ("/a/b", "dbfs/a/b"),
        ("/Volumes/main/ml/v/x", "Volumes/main/ml/v/x"),
        ("dbfs:/Volumes/main/ml/v/x", "Volumes/main/ml/v/x"),
        ("/Workspace/Shared/x", "Workspace/Shared/x"),
        ("/../../etc/passwd", "dbfs/etc/passwd"),
        ("dbfs:/Volumes/../../x", "dbfs/x"),
    ],
)
def test_a_path_of_a_cluster_is_below_the_root(fs, tmp_path, path: str, local: str) -> None:
    assert fs.local(path) == tmp_path / "root" / local


def test_a_path_of_the_machine_is_itself(fs) -> None:
    assert fs.local("file:/etc/hosts") == Path("/etc/hosts")
    assert fs.local("file:///etc/hosts") == Path("/etc/hosts")


@pytest.mark.parametrize("path", ["relative/x", "abfss://c@a.dfs.core.windows.net/x", "s3://b/x"])
def test_a_path_of_another_storage_is_an_error_that_names_it(fs, path: str) -> None:
    with pytest.raises(NotebookError, match=rf"or file:/ here: got '{path}'"):
        fs.local(path)


def test_what_is_put_is_listed_and_read(fs, capsys) -> None:
    fs.put("/Volumes/main/ml/b.txt", "grün")
    fs.mkdirs("dbfs:/Volumes/main/ml/a")

    assert capsys.readouterr().out == "Wrote 5 bytes.\n"
    folder, file = fs.ls("/Volumes/main/ml")
    assert (folder.path, folder.name, folder.size) == ("dbfs:/Volumes/main/ml/a/", "a/", 0)
    assert (file.path, file.name, file.size) == ("dbfs:/Volumes/main/ml/b.txt", "b.txt", 5)
    assert (folder.isDir(), file.isDir(), file.isFile()) == (True, False, True)
    assert file.modificationTime > 1_600_000_000_000
    assert fs.head("/Volumes/main/ml/b.txt") == "grün"
    assert fs.head("/Volumes/main/ml/b.txt", 2) == "gr"
    fs.put("/x", "1")
    assert [entry.path for entry in fs.ls("dbfs:/")] == ["dbfs:/x"]


def test_a_file_is_replaced_only_when_asked(fs) -> None:
    fs.put("/x", "old")

    with pytest.raises(FileExistsError):
        fs.put("/x", "new")
    assert fs.head("/x") == "old"
    fs.put("/x", "new", overwrite=True)
    assert fs.head("/x") == "new"


def test_files_are_copied_moved_and_removed(fs) -> None:
    fs.put("/a/x", "1")

    fs.cp("/a/x", "/new/folder/y")
    fs.mv("/a/x", "/z")
    assert [entry.path for entry in fs.ls("/new/folder")] == ["dbfs:/new/folder/y"]
    assert fs.head("/z") == "1"
    assert fs.ls("/a") == []
    assert fs.rm("/z") is True
    assert fs.rm("/z") is False
    with pytest.raises(FileNotFoundError):
        fs.ls("/z")


def test_a_folder_is_copied_moved_and_removed_only_with_recurse(fs) -> None:
    fs.put("/a/b/x", "1")

    for operation in (fs.cp, fs.mv):
        with pytest.raises(IsADirectoryError, match="pass recurse=True"):
            operation("/a", "/c")
    with pytest.raises(OSError, match="not empty"):
        fs.rm("/a")
    fs.cp("/a", "/c", recurse=True)
    fs.mv("/a", "/d", recurse=True)
    fs.rm("/c", recurse=True)
    assert [entry.name for entry in fs.ls("/")] == ["d/"]
    assert fs.head("/d/b/x") == "1"


def test_code_can_ask_whether_a_folder_of_a_cluster_exists(tmp_path) -> None:
    exists = "[os.path.exists(path) for path in ('/dbfs', '/dbfs/', '/Volumes', '/Workspace/a')]"
    path = write_notebook(tmp_path / "n.py", f"import os\ndbutils.notebook.exit({exists})")
    (tmp_path / "root" / "dbfs").mkdir(parents=True)

    value = run_notebook(path, spark=None, files=Files(tmp_path / "root")).exit_value

    assert value == "[True, True, False, False]"
