"""Wheel and source distribution: the same bytes from one commit, and every file of the package.

`make release-check` lists both and runs these tests. tests/testing/test_starter.py installs the
wheel and uses it in a folder where nothing else of this repository exists.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.shell]


def build(folder: Path, checkout: Path = ROOT, **variables: str) -> Path:
    """Build both into a folder and return it."""
    subprocess.run(
        [str(checkout / ".ci" / "build"), str(folder)],
        env={**os.environ, **variables},
        check=True,
        # New files of the second build have no permissions for other users.
        umask=0o077 if variables else -1,
    )
    return folder


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a Git checkout")
    return build(tmp_path_factory.mktemp("release") / "dist")


def package_files() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "dbx_aml"]
    listed = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    return sorted(name for name in listed if (ROOT / name).exists())


def test_another_folder_time_zone_umask_and_hour_give_the_same_bytes(
    dist: Path, tmp_path: Path
) -> None:
    checkout = tmp_path / "größe"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
    # Changes that are not committed belong to both builds.
    shutil.copytree(ROOT / "dbx_aml", checkout / "dbx_aml", dirs_exist_ok=True)
    for name in ("setup.py", "pyproject.toml", "README.md", ".ci/build"):
        shutil.copy(ROOT / name, checkout / name)
    (checkout / ".venv").symlink_to(ROOT / ".venv")

    again = build(tmp_path / "again", checkout, TZ="Asia/Tokyo", LC_ALL="C.UTF-8")

    assert (again / "SHA256SUMS").read_text() == (dist / "SHA256SUMS").read_text()
    names = sorted(path.name for path in dist.iterdir())
    version = re.search(r'version="([\d.]+)"', (ROOT / "setup.py").read_text())[1]  # type: ignore[index]
    stem = f"dbx_aml-{version}"
    assert names == ["SHA256SUMS", f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"]
    for line in (dist / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((again / name).read_bytes()).hexdigest() == digest


def test_the_wheel_has_every_file_of_the_package_and_the_licence(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        licence = next(name for name in names if name.endswith("/licenses/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    package = sorted(name for name in names if name.startswith("dbx_aml/"))
    assert package == package_files()
    # What a node of each runtime installs, and the script that installs it.
    assert "dbx_aml/cluster/runtimes/16.4.txt" in package
    assert "dbx_aml/cluster/node/dbx_aml_init.sh" in package
    others = {name.partition("/")[0] for name in names} - {"dbx_aml"}
    assert [name.endswith(".dist-info") for name in others] == [True]


def test_the_source_distribution_has_the_same_files_and_belongs_to_no_user(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    names = {member.name.partition("/")[2] for member in members if member.isfile()}
    assert {name for name in names if name.startswith("dbx_aml/")} == set(package_files())
    assert {"LICENSE", "README.md", "PKG-INFO", "pyproject.toml", "setup.py"} <= names
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {
        (0, 0, "", "")
    }
    assert len({member.mtime for member in members}) == 1
