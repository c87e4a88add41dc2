"""Example tests to start from: a transformation, a scoring job and a notebook."""

from __future__ import annotations

import shutil
from pathlib import Path

from dbx_aml._common.errors import ArgumentError

EXAMPLE_TESTS = Path(__file__).with_name("example_tests")


def write_example_tests(folder: Path) -> list[Path]:
    """Copy the example tests to a folder and return the new files; nothing is overwritten.

    Args:
        folder: Folder for the tests, for example "tests"; created if missing.

    Raises:
        ArgumentError: A file of the same name exists, so nothing was written.
    """
    sources = sorted(path for path in EXAMPLE_TESTS.rglob("*.py"))
    targets = [folder / source.relative_to(EXAMPLE_TESTS) for source in sources]
    existing = [str(target) for target in targets if target.exists()]
    if existing:
        raise ArgumentError(
            f"example tests must not replace a file: got {', '.join(existing)}; name another folder"
        )
    for source, target in zip(sources, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return targets
