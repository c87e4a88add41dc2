"""Files that are written whole, stay in their folder, and are known by their content."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dbx_aml._common.errors import UnsafePathError
from dbx_aml._common.paths import (
    check_relative_path,
    join_inside,
    quote_segment,
    resolve_inside,
    sha256_of_file,
    sha256_of_folder,
    write_atomically,
)


def test_a_file_is_replaced_whole_and_no_draft_stays(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file.json"
    write_atomically(file, "old")
    write_atomically(file, "néw", mode=0o600)
    assert file.read_text(encoding="utf-8") == "néw"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    write_atomically(file, b"old")
    monkeypatch.setattr(Path, "chmod", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def _interrupt(path: Path, mode: int) -> None:
    raise KeyboardInterrupt


UNSAFE_NAMES = [
    "", ".", "./", "..", "../x", "a/..", "a/../b", "a/../../x", "/etc/passwd", "//etc/passwd",
    "C:", "c:/x", "a\\b", "..\\x", "a\0b", "a\nb", "a\x1b[2Jb", "a\x7f", "a\x85b", "\ud800",
    None, 7, [],
]  # fmt: skip


def test_a_name_below_the_folder_is_resolved(tmp_path: Path) -> None:
    assert resolve_inside(tmp_path, "model/MLmodel") == tmp_path.resolve() / "model" / "MLmodel"
    assert resolve_inside(str(tmp_path), "größe ..%2e/..a") == tmp_path / "größe ..%2e" / "..a"
    assert join_inside("/Volumes/main/ml/f/", "wheelhouse/a.whl") == (
        "/Volumes/main/ml/f/wheelhouse/a.whl"
    )
    assert quote_segment("a b#?%2e") == "a%20b%23%3F%252e"


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: Any) -> None:
    for refuse in (
        check_relative_path,
        quote_segment,
        partial(resolve_inside, tmp_path),
        partial(join_inside, "/Volumes/main/ml/f"),
    ):
        with pytest.raises(UnsafePathError, match="path must stay inside its folder") as caught:
            refuse(name)
        assert repr(name) in str(caught.value)
        assert str(caught.value).isprintable()


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "circle").symlink_to("circle")
    (folder / "inside").symlink_to("other")
    assert resolve_inside(folder, "inside/x") == folder.resolve() / "other" / "x"
    for name in ("link", "link/x", "circle/x"):
        with pytest.raises(UnsafePathError, match=f"got {name!r}"):
            resolve_inside(folder, name)


def test_a_segment_of_a_url_is_one_name() -> None:
    with pytest.raises(UnsafePathError, match="got 'a/b'"):
        quote_segment("a/b")
    with pytest.raises(UnsafePathError, match=r"got '/xx.*\.\.\.; report it") as caught:
        quote_segment("/" + "x" * 5000)
    assert len(str(caught.value)) < 500


def test_the_hash_of_a_folder_depends_on_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_text("2")
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(b"1").hexdigest()
    before = sha256_of_folder(tmp_path)
    (tmp_path / "b" / "c").rename(tmp_path / "b" / "d")
    assert sha256_of_folder(tmp_path) != before
