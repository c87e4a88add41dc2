"""The files of a wheel: only a wheel whose hash was right decides, and only below one folder."""

import zipfile
from pathlib import Path

import pytest

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.node import installed_packages
from dbx_aml.cluster.node.installed_packages import refuse_overwriting, remove_files
from dbx_aml.cluster.node.package_changes import roll_back
from dbx_aml.cluster.node.package_plan import plan_packages
from tests.support.node.wheel import sha256, write_wheel


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of this Python's packages."""
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    monkeypatch.setattr(installed_packages, "_SITE_PACKAGES", folder)
    return folder


def write_archive(folder: Path, *names: str) -> Path:
    """Write an archive with the name of a wheel and these files."""
    file = folder / "team-1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), "x")
    return file


@pytest.mark.parametrize(
    "name",
    [
        "{outside}", "../../important.conf", "team/../../../important.conf", "link/important.conf",
        "team-1.data/purelib/../../../important.conf", "team\\important.conf",
    ],
)  # fmt: skip
def test_a_wheel_with_a_file_outside_of_the_packages_folder_is_refused(
    site_packages: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "important.conf"
    outside.write_text("keep me")
    (site_packages / "link").symlink_to(tmp_path)
    (site_packages / "team").mkdir()
    (site_packages / "team" / "__init__.py").write_text("")
    wheel = write_archive(tmp_path, "team/__init__.py", name.format(outside=outside))
    with pytest.raises(ClusterError, match=r"team-1-py3-none-any\.whl must hold files of a pack"):
        refuse_overwriting([wheel], [], [str(site_packages)])
    # To remove the rest goes on, and this wheel decides about no file.
    assert roll_back({"team": "1"}, [wheel], [str(site_packages)]) == {}
    assert outside.read_text() == "keep me"
    assert (site_packages / "team" / "__init__.py").is_file()


def test_the_files_of_a_wheel_are_removed_with_their_folders(
    site_packages: Path, tmp_path: Path
) -> None:
    wheel = write_archive(tmp_path, "team/__init__.py", "team/a/b.py", "team-1.data/scripts/run")
    for name in ("team/__init__.py", "team/a/b.py", "team/a/b.pyc", "other/c.py"):
        file = site_packages / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    remove_files([wheel], [str(site_packages)])
    files = [file.relative_to(site_packages) for file in site_packages.rglob("*")]
    assert sorted(map(str, files)) == ["other", "other/c.py"]


def test_a_wheel_without_the_right_hash_is_no_part_of_a_plan(tmp_path: Path) -> None:
    wheelhouse, work_folder = tmp_path / "wheelhouse", tmp_path / "work"
    work_folder.mkdir()
    own = write_wheel(wheelhouse, "dbx-aml", "0.1.0")
    wheel = write_wheel(wheelhouse, "team", "1")
    requirements = work_folder / "requirements.txt"
    requirements.write_text(f"team==1 --hash=sha256:{sha256(wheel)}")
    plan = plan_packages(wheelhouse, {"azureml-mlflow": "1.62"}, own, work_folder)
    (copy,) = plan.files
    assert copy.parent.parent == work_folder
    assert sha256(copy) == sha256(wheel)
    with wheel.open("ab") as stream:
        stream.write(b"changed")
    with pytest.raises(ClusterError, match=r"must hold team 1 with the hash in its requirements"):
        plan_packages(wheelhouse, {"azureml-mlflow": "1.62"}, own, work_folder)
    requirements.write_text("team==1")
    with pytest.raises(ClusterError, match=r"must have one line 'name==version --hash=sha256:"):
        plan_packages(wheelhouse, {"azureml-mlflow": "1.62"}, own, work_folder)
