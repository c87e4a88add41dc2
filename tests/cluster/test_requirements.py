"""Requirements on a runtime: missing packages are added, newer ones kept, older ones refused."""

from pathlib import Path

import pytest

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.node.marker import KeptPackage
from dbx_aml.cluster.node.requirements import (
    Wheel,
    missing_requirements,
    read_hashes,
    read_pins,
    unmet_requirements,
)
from tests.support.node.wheel import write_wheel

PLUGIN = Wheel(
    name="azureml-mlflow",
    version="1.62.0.post6",
    requires=(
        "azure-storage-blob<=12.27.1,>=12.5.0",
        "azure_core!=1.22.0,<2.0.0,>=1.8.0",
        "jsonpickle<5.0.0",
        'numpy; extra == "deployments"',
        'tomli; python_version < "3.11"',
    ),
)


def test_only_missing_packages_are_added_and_newer_ones_are_kept() -> None:
    versions = {"azure-storage-blob": "12.29.0", "azure-core": "1.41.0"}
    requirements = missing_requirements([PLUGIN], versions)
    assert requirements.to_add == ("jsonpickle<5.0.0",)
    assert requirements.kept_packages == (
        KeptPackage(
            package="azure-storage-blob",
            version="12.29.0",
            required_by="azureml-mlflow 1.62.0.post6",
            requirement="<=12.27.1,>=12.5.0",
        ),
    )


def test_markers_are_evaluated_for_the_runtime() -> None:
    versions = {"azure-storage-blob": "12.23.0", "azure-core": "1.31.0"}
    requirements = missing_requirements([PLUGIN], versions, {"python_version": "3.10"})
    assert requirements.to_add == ("jsonpickle<5.0.0", "tomli")
    assert requirements.kept_packages == ()


@pytest.mark.parametrize(
    ("requirement", "version"),
    [
        ("blob<=12.27.1,>=12.5.0", "12.4.9"),
        ("blob~=12.5", "12.4"),
        ("blob==12.5.*", "12.4"),
        ("blob!=12.29.0,<=12.27.1", "12.29.0"),
        ("blob<2", "of-the-vendor"),
    ],
)
def test_an_older_or_excluded_version_is_refused(requirement: str, version: str) -> None:
    wheel = Wheel(name="plugin", version="1", requires=(requirement,))
    with pytest.raises(ClusterError, match=r"^blob must be .* for plugin 1: got "):
        missing_requirements([wheel], {"blob": version})


@pytest.mark.parametrize("requirement", ["blob~=12.5", "blob==12.5.*", "blob==12.5", "blob<12.6"])
def test_a_newer_version_is_kept_for_every_kind_of_upper_limit(requirement: str) -> None:
    wheel = Wheel(name="plugin", version="1", requires=(requirement,))
    (package,) = missing_requirements([wheel], {"blob": "13.0"}).kept_packages
    assert package.version == "13.0"


def test_an_unmet_requirement_is_reported_unless_its_limit_is_ignored() -> None:
    versions = {"azure-storage-blob": "12.29.0", "azure-core": "1.7.0"}
    kept_packages = missing_requirements([PLUGIN], versions | {"azure-core": "1.8.0"}).kept_packages
    label = "azureml-mlflow 1.62.0.post6"
    assert unmet_requirements([PLUGIN], versions, kept_packages) == [
        f"{label} requires azure_core!=1.22.0,<2.0.0,>=1.8.0, 1.7.0 is installed",
        f"{label} requires jsonpickle<5.0.0, none is installed",
    ]
    assert len(unmet_requirements([PLUGIN], versions)) == 3


def test_pins_are_read_from_a_freeze_and_from_requirements_with_hashes() -> None:
    text = (
        "# comment\nazure_core==1.41.0\nJinja2==3.1.6  # comment\n-e git+x\nfoo @ file:///x==1\n"
        'a==1 ; python_version > "3"\nb==2 --hash=sha256:aa==bb\n\n'
    )
    assert read_pins(text) == {"azure-core": "1.41.0", "jinja2": "3.1.6", "a": "1", "b": "2"}


def test_a_list_of_hashes_is_read_line_by_line() -> None:
    line = f"azureml-mlflow==1.62.0.post6 --hash=sha256:{'0a' * 32}"
    (entry,) = read_hashes(f"{line}\n")
    assert (entry.name, entry.version) == ("azureml-mlflow", "1.62.0.post6")
    assert str(entry) == line


@pytest.mark.parametrize(
    "line",
    [
        "b==1",
        "b==1 --hash=sha256:0",
        f"b==1 --hash=sha256:{'0' * 64} --hash=sha256:{'1' * 64}",
        f"b>=1 --hash=sha256:{'0' * 64}",
        f"b==1 ; python_version > '3' --hash=sha256:{'0' * 64}",
        f"../b==1 --hash=sha256:{'0' * 64}",
        f"b[x]==1 --hash=sha256:{'0' * 64}",
        f"b==٣ --hash=sha256:{'0' * 64}",
        f"a==2 --hash=sha256:{'0' * 64}",
        "--index-url=https://x",
        "-r other.txt",
        "# comment",
        " ",
    ],
)
def test_any_other_line_in_a_list_of_hashes_is_refused_and_not_repeated(line: str) -> None:
    text = f"a==1 --hash=sha256:{'0' * 64}\n{line}\n"
    with pytest.raises(ClusterError, match="line 2 is none; fill the wheelhouse") as caught:
        read_hashes(text)
    assert "\n" not in str(caught.value)


def test_a_wheel_is_read_and_another_file_is_refused(tmp_path: Path) -> None:
    file = write_wheel(tmp_path, "msrest", "0.7.1", ("azure-core>=1",))
    assert Wheel.from_file(file) == Wheel(
        name="msrest", version="0.7.1", requires=["azure-core>=1"]
    )
    (tmp_path / "x.whl").write_text("x")
    with pytest.raises(ClusterError, match="must be a wheel"):
        Wheel.from_file(tmp_path / "x.whl")
