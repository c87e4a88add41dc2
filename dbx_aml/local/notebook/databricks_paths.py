"""`dbutils.fs`, and where a cluster's paths are on this machine: below one folder.

dbfs:/a            <root>/dbfs/a
/Volumes/a/b/c/d   <root>/Volumes/a/b/c/d
/Workspace/Shared  <root>/Workspace/Shared, and so /Shared, /Users, /Repos for a notebook
file:/a            /a

`map_python_paths` makes `open` and `os` of a notebook's process look there, too.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dbx_aml._common.errors import NotebookError
from dbx_aml.local.spark import local_root

_HEAD_BYTES = 65_536
_MOUNTS = ("/Volumes/", "/Workspace/", "/dbfs/")
_OS_FUNCTIONS = (
    *("access", "chmod", "link", "listdir", "lstat", "mkdir", "open", "remove", "rename"),
    *("replace", "rmdir", "scandir", "stat", "symlink", "truncate", "unlink", "utime"),
)


class FileInfo(NamedTuple):
    """A file or folder in the result of `ls`; size in bytes, time in milliseconds since 1970."""

    path: str
    name: str
    size: int
    modificationTime: int

    def isDir(self) -> bool:
        """Return whether the entry is a folder."""
        return self.name.endswith("/")

    def isFile(self) -> bool:
        """Return whether the entry is a file."""
        return not self.isDir()


class Files:
    """`dbutils.fs`, with the argument names of Databricks.

    Args:
        root: Folder that stands for the cluster's storage; default: `files` in the local root.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self._root = Path(root or local_root() / "files").absolute()

    def local(self, path: str) -> Path:
        """Return the path on this machine for a path of a cluster; the file need not exist.

        Raises:
            NotebookError: The path is relative, or belongs to another storage.
        """
        scheme, colon, scheme_path = path.partition(":")
        if not colon:
            scheme, scheme_path = "dbfs", path
        if scheme not in ("dbfs", "file") or not scheme_path.startswith("/"):
            raise NotebookError(
                f"path must begin with dbfs:/, /Volumes/, /Workspace/ or file:/ here: got {path!r}"
            )
        clean = os.path.normpath("/" + scheme_path.lstrip("/"))
        if scheme == "file":
            return Path(clean)
        # dbfs:/Volumes/... and /Volumes/... are the same path.
        is_named = clean.split("/")[1] in ("Volumes", "Workspace")
        return self._root / ("." if is_named else "dbfs") / clean[1:]

    def notebook(self, name: str, caller: Path) -> Path:
        """Return the file of a notebook that another notebook names.

        Args:
            name: Path relative to the caller, or absolute, for example "/Workspace/Shared/_setup".
            caller: Notebook that contains the name.

        Raises:
            NotebookError: The name ends with .py, as no name in a workspace does.
        """
        file = Path(name + ".py")
        if not file.is_absolute():
            file = caller.parent / file
        elif not file.is_file():
            in_workspace = "" if name.startswith("/Workspace/") else "/Workspace"
            file = self.local(f"{in_workspace}{file}")
        if name.endswith(".py") and not file.is_file():
            raise NotebookError(
                f"notebook must be named without .py: got {name!r}; "
                f"use {name.removesuffix('.py')!r}"
            )
        return file

    def ls(self, dir: str) -> list[FileInfo]:
        """Return the entries of a folder, or the entry of a file."""
        start = self.local(dir)
        paths = sorted(start.iterdir()) if start.is_dir() else [start]
        infos = []
        for path in paths:
            stat, slash = path.stat(), "/" if path.is_dir() else ""
            size = 0 if slash else stat.st_size
            uri, name = self._cluster_uri(path) + slash, path.name + slash
            infos.append(FileInfo(uri, name, size, int(stat.st_mtime * 1000)))
        return infos

    def cp(self, from_: str, to: str, recurse: bool = False) -> bool:
        """Copy a file, or with `recurse` a folder."""
        source, target = self._source_and_target(from_, to, recurse)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
        return True

    def mv(self, from_: str, to: str, recurse: bool = False) -> bool:
        """Move a file, or with `recurse` a folder."""
        source, target = self._source_and_target(from_, to, recurse)
        shutil.move(source, target)
        return True

    def rm(self, dir: str, recurse: bool = False) -> bool:
        """Remove a file or an empty folder, with `recurse` any folder; False for a missing path."""
        path = self.local(dir)
        if not path.exists():
            return False
        if path.is_dir():
            shutil.rmtree(path) if recurse else path.rmdir()
        else:
            path.unlink()
        return True

    def mkdirs(self, dir: str) -> bool:
        """Create a folder and its parents."""
        self.local(dir).mkdir(parents=True, exist_ok=True)
        return True

    def put(self, file: str, contents: str, overwrite: bool = False) -> bool:
        """Write a text to a new file, or with `overwrite` to an existing file."""
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

    def _source_and_target(self, from_: str, to: str, recurse: bool) -> tuple[Path, Path]:
        source, target = self.local(from_), self.local(to)
        if source.is_dir() and not recurse:
            raise IsADirectoryError(f"{from_} is a folder: pass recurse=True")
        target.parent.mkdir(parents=True, exist_ok=True)
        return source, target

    def _cluster_uri(self, path: Path) -> str:
        for folder, name in ((self._root / "dbfs", "dbfs:/"), (self._root, "dbfs:/")):
            if path.is_relative_to(folder):
                return name + str(path.relative_to(folder))
        return f"file:{path}"


def map_python_paths(files: Files) -> None:
    """Let `open` and `os` of this process read and write a cluster's paths where `files` has them.

    On a cluster /Volumes, /Workspace and /dbfs are folders, which any code can open.
    """

    def local_path(value: Any) -> Any:
        path = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(path, str) or not f"{path}/".startswith(_MOUNTS):
            return value
        on_dbfs = path.startswith("/dbfs")
        return str(files.local(f"dbfs:/{path.removeprefix('/dbfs')}" if on_dbfs else path))

    def with_local_paths(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(
                *map(local_path, args),
                **{name: local_path(value) for name, value in kwargs.items()},
            )

        return call

    for name in _OS_FUNCTIONS:
        setattr(os, name, with_local_paths(getattr(os, name)))
    builtins.open = io.open = with_local_paths(io.open)
