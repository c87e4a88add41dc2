"""Folders without a commit, which killed jobs leave in the folder of Delta tables."""

import fcntl
import os
import time
from pathlib import Path

from dbx_aml.local.delta_folder import move_uncommitted_folders


def make_warehouse(root: Path) -> Path:
    """Make two tables, one of another format than Delta, and two folders without a commit."""
    for name in ("table/_delta_log/0.json", "table/a.parquet", "other/_SUCCESS", "other/a.parquet"):
        file = root / "warehouse" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for name in ("killed", "nightly.db/killed"):
        (root / "warehouse" / name).mkdir(parents=True)
        (root / "warehouse" / name / "part-0.snappy.parquet").write_bytes(b"rows")
    return root / "warehouse"


def test_only_the_folders_without_a_commit_are_moved_away(tmp_path: Path) -> None:
    warehouse = make_warehouse(tmp_path)
    move_uncommitted_folders(tmp_path, os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT))
    assert sorted(path.name for path in warehouse.iterdir()) == ["nightly.db", "other", "table"]
    assert list((warehouse / "nightly.db").iterdir()) == []
    moved = sorted((tmp_path / "leftovers").glob("killed-*/part-0.snappy.parquet"))
    assert [file.read_bytes() for file in moved] == [b"rows", b"rows"]


def test_folders_without_a_commit_stay_while_another_job_runs(tmp_path: Path) -> None:
    warehouse = make_warehouse(tmp_path)
    other_job = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other_job, fcntl.LOCK_SH)
    lock = os.open(tmp_path / ".lock", os.O_RDWR)
    start = time.monotonic()
    move_uncommitted_folders(tmp_path, lock, wait_s=0.3)
    assert 0.3 <= time.monotonic() - start < 20
    assert (warehouse / "killed").exists()
    os.close(other_job)
    move_uncommitted_folders(tmp_path, lock, wait_s=0)
    assert not (warehouse / "killed").exists()
