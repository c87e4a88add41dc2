"""`dbutils.fs`, and where a cluster's paths are on this machine: below one folder.

dbfs:/a            <root>/dbfs/a
/Volumes/a/b/c/d   <root>/Volumes/a/b/c/d
/Workspace/Shared  <root>/Workspace/Shared, and so /Shared, /Users, /Repos for a notebook
file:/a            /a
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from dbx_aml._common.errors import NotebookError
from dbx_aml.local.spark import local_root

_HEAD_BYTES = 65_536


class FileInfo(NamedTuple):
    """What `ls` says of a file or folder; size in bytes, time in milliseconds since 1970."""

    path: str
    name: str
    size: int
    modificationTime: int

    def isDir(self) -> bool:
        """Return whether it is a folder."""
        return self.name.endswith("/")

    def isFile(self) -> bool:
        """Return whether it is a file."""
        return not self.isDir()


class Files:
    """`dbutils.fs`, with the argument names of Databricks.

    Args:
        root: The folder that stands for the cluster's storage; by default `files` in the local
            root.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self._root = Path(root or local_root() / "files").absolute()

    def local(self, path: str) -> Path:
        """Return where a path of a cluster is on this machine; it need not exist.

        Raises:
            NotebookError: The path is relative, or of a storage that is not here.
        """
        scheme, colon, rest = path.partition(":")
        if not colon:
            scheme, rest = "dbfs", path
        if scheme not in ("dbfs", "file") or not rest.startswith("/"):
            raise NotebookError(
                f"path must begin with dbfs:/, /Volumes/, /Workspace/ or file:/ here: got {path!r}"
            )
        clean = os.path.normpath("/" + rest.lstrip("/"))
        if scheme == "file":
            return Path(clean)
        # Both names of a volume mean the same.
        is_named = clean.split("/")[1] in ("Volumes", "Workspace")
        return self._root / ("." if is_named else "dbfs") / clean[1:]

    def notebook(self, name: str, caller: Path) -> Path:
        """Return the file of the notebook that another one names.

        Args:
            name: Relative to the caller, or absolute, for example "/Workspace/Shared/_setup".
            caller: The notebook that names it.
        """
        file = name if name.endswith(".py") else name + ".py"
        if not file.startswith("/") or Path(file).is_file():
            return caller.parent / file
        in_workspace = file if file.startswith("/Workspace/") else "/Workspace" + file
        return self.local(in_workspace)

    def ls(self, dir: str) -> list[FileInfo]:
        """Return what is in a folder, or the one file."""
        start = self.local(dir)
        found = sorted(start.iterdir()) if start.is_dir() else [start]
        infos = []
        for path in found:
            stat, mark = path.stat(), "/" if path.is_dir() else ""
            shown = self._shown(path) + mark
            size = 0 if mark else stat.st_size
            infos.append(FileInfo(shown, path.name + mark, size, int(stat.st_mtime * 1000)))
        return infos

    def cp(self, from_: str, to: str, recurse: bool = False) -> bool:
        """Copy a file, or with `recurse` a folder."""
        source, target = self._pair(from_, to, recurse)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
        return True

    def mv(self, from_: str, to: str, recurse: bool = False) -> bool:
        """Move a file, or with `recurse` a folder."""
        source, target = self._pair(from_, to, recurse)
        shutil.move(source, target)
        return True

    def rm(self, dir: str, recurse: bool = False) -> bool:
        """Remove a file or an empty folder, with `recurse` any; False if there is none."""
        path = self.local(dir)
        if not path.exists():
            return False
        if path.is_dir():
            shutil.rmtree(path) if recurse else path.rmdir()
        else:
            path.unlink()
        return True

    def mkdirs(self, dir: str) -> bool:
        """Make a folder and those above it."""
        self.local(dir).mkdir(parents=True, exist_ok=True)
        return True

    def put(self, file: str, contents: str, overwrite: bool = False) -> bool:
        """Write a text to a file; one that is there only with `overwrite`."""
        path = self.local(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if overwrite else "x", encoding="utf-8") as out:
            out.write(contents)
        sys.stdout.write(f"Wrote {path.stat().st_size} bytes.\n")
        return True

    def head(self, file: str, max_bytes: int = _HEAD_BYTES) -> str:
        """Return the first bytes of a file as text."""
        with self.local(file).open("rb") as stream:
            return stream.read(max_bytes).decode("utf-8", errors="replace")

    def _pair(self, src: str, dst: str, recurse: bool) -> tuple[Path, Path]:
        source, target = self.local(src), self.local(dst)
        if source.is_dir() and not recurse:
            raise IsADirectoryError(f"{src} is a folder: pass recurse=True")
        target.parent.mkdir(parents=True, exist_ok=True)
        return source, target

    def _shown(self, path: Path) -> str:
        for folder, name in ((self._root / "dbfs", "dbfs:/"), (self._root, "dbfs:/")):
            if path.is_relative_to(folder):
                return name + str(path.relative_to(folder))
        return f"file:{path}"
