"""The files of a folder that a job gets: without ignored ones, links only inside the folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dbx_aml._common.errors import ArgumentError, ProgramError
from dbx_aml._common.text import install_command, plural

MAX_SNAPSHOT_MB = 300
# The first one that the folder has counts, as for Azure ML's own clients.
_IGNORE_FILES = (".amlignore", ".gitignore")
# Folder of this package's wheel in the snapshot. A downloaded snapshot has the wheel of its job.
WHEEL_FOLDER = ".dbx_aml"
_NEVER_UPLOADED = frozenset({".git", "__pycache__", WHEEL_FOLDER})
_SHOWN_FILES = 3


def read_snapshot(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that a job gets, by their paths below the folder.

    Args:
        folder: Folder with the script. Its `.amlignore`, else its `.gitignore`, leaves files out.

    Raises:
        ArgumentError: The folder has no file, has more than 300 MB, a link leaves it or leads to
            nothing, or it has a pipe.
        ProgramError: The package pathspec is not installed.
    """
    try:
        from pathspec import GitIgnoreSpec
    except ImportError as err:
        raise ProgramError(
            f"pathspec must be installed: it is not; run: {install_command('serve')}"
        ) from err
    root = folder.resolve()
    ignore_file = next((root / name for name in _IGNORE_FILES if (root / name).is_file()), None)
    lines = ignore_file.read_text(encoding="utf-8").splitlines() if ignore_file else []
    ignored = GitIgnoreSpec.from_lines(lines)

    def walk(current: Path, parents: frozenset[Path]) -> Iterator[Path]:
        for path in sorted(current.iterdir()):
            name = path.relative_to(root).as_posix()
            if path.name in _NEVER_UPLOADED or ignored.match_file(name):
                continue
            target = path.resolve()
            if not target.is_relative_to(root) or target in parents:
                raise ArgumentError(
                    f"link must stay inside the folder of the job: got '{name}', which leads to "
                    f"'{target}'; copy the file, or name the link in .amlignore"
                )
            if target.is_file():
                yield path
            elif not target.is_dir():
                # Reading a pipe would wait for its writer.
                raise ArgumentError(
                    f"folder of the job must have files and folders alone: got '{name}', which is "
                    f"{'a link to nothing' if path.is_symlink() else 'neither'}; remove it, or "
                    "name it in .amlignore"
                )
            elif not ignored.match_file(f"{name}/"):
                yield from walk(path, parents | {target})

    files = {path.relative_to(root).as_posix(): path for path in walk(root, frozenset({root}))}
    if not files:
        raise ArgumentError(
            f"folder of the job must have a file that is not ignored: got none in '{folder}'; "
            f"compare {' and '.join(_IGNORE_FILES)}"
        )
    sizes = {name: path.stat().st_size for name, path in files.items()}
    if sum(sizes.values()) > MAX_SNAPSHOT_MB * 10**6:
        largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:_SHOWN_FILES]
        raise ArgumentError(
            f"folder of the job must have at most {MAX_SNAPSHOT_MB} MB: got "
            f"{sum(sizes.values()) / 10**6:,.0f} MB in {plural(len(sizes), 'file')}, among them "
            f"{', '.join(largest)}; name what the job does not need in .amlignore"
        )
    return files
