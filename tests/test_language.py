"""Names say which thing they stand for, and each sentence can be understood alone."""

from pathlib import Path

import pytest

import dbx_aml
from tests.support.riddles import count_riddles
from tests.support.vague_names import counted_names

ROOT = Path(__file__).parents[1]
PACKAGE = Path(dbx_aml.__file__).parent


@pytest.mark.parametrize(("folder", "limit"), [(PACKAGE, 0.01), (ROOT / "tests", 0.02)])
def test_hardly_any_name_is_vague(folder: Path, limit: float) -> None:
    names = counted_names([folder])
    vague = [f"{name.file}:{name.line} {name.kind} {name.name}" for name in names if name.is_vague]
    assert len(names) > 1000
    assert len(vague) <= limit * len(names), "\n".join(vague)


@pytest.mark.parametrize(
    "path", [PACKAGE, ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "notebooks", ROOT / "tests"]
)
def test_hardly_any_sentence_is_a_riddle(path: Path) -> None:
    lines, hits = count_riddles(path)
    assert lines > 10
    riddles = [f"{hit.file}:{hit.line} [{hit.phrase}] {hit.sentence}" for hit in hits]
    assert len(hits) < lines / 100, "\n".join(riddles)
