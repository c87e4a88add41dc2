"""The files that a job gets: ignored ones are left out, links stay inside, the size is bounded."""

import os
from pathlib import Path

import pytest

from dbx_aml._common.errors import ArgumentError
from dbx_aml.serving import job_snapshot
from dbx_aml.serving.job_snapshot import read_snapshot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a script and data."""
    root = tmp_path / "project"
    for name in (
        "train.py",
        "data/a.csv",
        "data/deep/b.csv",
        ".git/config",
        "__pycache__/t.pyc",
        ".dbx_aml/a.whl",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_all_files_travel_but_not_those_of_git_and_of_the_interpreter(folder: Path) -> None:
    files = read_snapshot(folder)
    assert sorted(files) == ["data/a.csv", "data/deep/b.csv", "train.py"]
    assert files["data/deep/b.csv"].read_text() == "data/deep/b.csv"


def test_amlignore_counts_before_gitignore_and_has_its_rules(folder: Path) -> None:
    (folder / ".gitignore").write_text("data/\n")
    assert sorted(read_snapshot(folder)) == [".gitignore", "train.py"]
    (folder / ".amlignore").write_text("*.csv\n!a.csv\n.*ignore\n")
    assert sorted(read_snapshot(folder)) == ["data/a.csv", "train.py"]


def test_a_link_inside_of_the_folder_is_its_file_and_one_that_leaves_it_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "copy.csv").symlink_to("data/a.csv")
    assert read_snapshot(folder)["copy.csv"].read_text() == "data/a.csv"
    (tmp_path / "secret").write_text("x")
    for name, target in (("out.csv", tmp_path / "secret"), ("loop", folder)):
        link = folder / "data" / name
        link.symlink_to(target)
        with pytest.raises(ArgumentError, match=f"link must stay inside .*'data/{name}'"):
            read_snapshot(folder)
        link.unlink()


@pytest.mark.parametrize("kind", ["a link to nothing", "neither"])
def test_a_link_to_nothing_and_a_pipe_are_named(folder: Path, kind: str) -> None:
    # An editor's lock of a file is such a link.
    path = folder / ".#train.py"
    path.symlink_to("ana@laptop.123") if kind == "a link to nothing" else os.mkfifo(path)
    with pytest.raises(ArgumentError, match=f"got '.#train.py', which is {kind}; remove it"):
        read_snapshot(folder)
    (folder / ".amlignore").write_text(".#*\n")
    assert sorted(read_snapshot(folder)) == [
        ".amlignore",
        *("data/a.csv", "data/deep/b.csv", "train.py"),
    ]


def test_an_empty_folder_and_one_that_is_too_large_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_snapshot, "MAX_SNAPSHOT_MB", 1)
    os.truncate(folder / "data/a.csv", 1_100_000)
    with pytest.raises(ArgumentError, match=r"at most 1 MB: got 1 MB in 3 files.* data/a.csv"):
        read_snapshot(folder)
    (folder / ".amlignore").write_text("*\n")
    with pytest.raises(ArgumentError, match=r"a file that is not ignored: got none in"):
        read_snapshot(folder)
