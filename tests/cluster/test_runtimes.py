"""The known Databricks Runtimes: their names in every form, and their packages."""

import pytest
from packaging.version import Version

from dbx_aml._common.databricks_runtime import running_version
from dbx_aml.cluster.node.requirements import read_hashes
from dbx_aml.cluster.resolve import inputs_digest
from dbx_aml.cluster.runtimes import (
    find_runtime,
    is_same_version,
    known_runtimes,
    refusal_of,
    runtime_name,
    supported_runtimes,
)


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("17.3", "17.3"),
        ("17.3.x-scala2.13", "17.3"),
        ("16.4.x-cpu-ml-scala2.12", "16.4-ml"),
        ("15.4.x-aarch64-photon-scala2.12", "15.4"),
        ("18.x-scala2.13", "18"),
        ("18.x-photon-scala2", "18"),
        ("18.2", "18"),
        ("18", "18"),
        ("19.x-gpu-ml-scala2.13", "19-ml"),
        ("client.4", "serverless-4"),
        ("client.4.9", "serverless-4"),
        ("client.5-gpu", "serverless-5"),
        ("16.2", "16.2"),
        ("17.x-scala2.13", None),
        ("17", None),
        ("custom:snapshot__17.3", None),
        ("17.3rc1", None),
        ("", None),
    ],
)
def test_every_form_of_a_version_in_databricks_has_the_same_name(
    version: str, name: str | None
) -> None:
    assert runtime_name(version) == name


def test_the_list_has_every_runtime_with_valid_versions() -> None:
    runtimes = known_runtimes()
    assert list(runtimes) == [
        "15.4", "16.4", "16.4-ml", "17.3", "17.3-ml", "18", "19",
        "serverless-4", "serverless-5", "serverless-6",
    ]  # fmt: skip
    for name, runtime in runtimes.items():
        assert (runtime.spark is None) == name.startswith("serverless-")
        assert len(runtime.packages) > (150 if runtime.is_complete else 5)
        assert all(Version(version) for version in runtime.packages.values())


def test_a_runtime_has_the_values_of_its_release_notes() -> None:
    runtime = find_runtime("18.x-scala2.13")
    assert runtime is not None
    assert (runtime.label, runtime.python, runtime.spark) == ("18 LTS", "3.12", "4.1.0")
    assert runtime.packages["azure-storage-blob"] == "12.28.0"
    assert runtime.packages["databricks-sdk"] == "0.67.0"
    serverless = find_runtime("client.6")
    assert serverless is not None
    assert (serverless.label, serverless.is_complete) == ("serverless 6", False)


@pytest.mark.parametrize(
    "name", [name for name, runtime in known_runtimes().items() if runtime.is_complete]
)
def test_the_list_of_a_runtime_was_made_for_its_packages_and_these_requirements(name: str) -> None:
    """After a change of runtimes.txt or setup.py, `make wheelhouses` writes the lists again."""
    runtime = known_runtimes()[name]
    assert runtime.list_lines[0] == f"# inputs: {inputs_digest(runtime)}"
    entries = read_hashes(runtime.requirements)
    assert {entry.name for entry in entries} & runtime.packages.keys() == set()
    assert bool(entries) != bool(runtime.refusal)


def test_supported_runtimes_have_a_list_and_the_others_a_reason() -> None:
    assert supported_runtimes() == [
        "16.4", "16.4-ml", "17.3", "17.3-ml", "18", "19", "serverless-4",
    ]  # fmt: skip
    assert known_runtimes()["15.4"].refusal == (
        "mlflow-skinny must be <4,>=2.19 for dbx-aml: the runtime has 2.11.4; use a newer runtime"
    )
    assert known_runtimes()["serverless-5"].refusal == "its release notes do not list its packages"
    assert "azure-storage-blob 12.28.0 stays, although" in known_runtimes()["18"].list_lines[1]


@pytest.mark.parametrize(
    ("version", "wheelhouse", "reason"),
    [
        ("17.3.x-scala2.13", "17.3", None),
        ("17.3.x-cpu-ml-scala2.13", "17.3-ml", None),
        ("18.2.x-photon-scala2.13", "18", None),
        ("custom:snapshot", "freeze.txt", None),
        ("20.1.x-scala2.13", "freeze.txt", None),
        ("17.3.x-scala2.13", "17.3-ml", "plain and ML apart: got one for 17.3-ml, and the cluster"),
        ("17.3.x-gpu-ml-scala2.13", "17.3", "got one for 17.3, and the cluster has 17.3.x-gpu-ml"),
        ("18.x-cpu-ml-scala2.13", "18", "with --constraints from 'pip freeze' on the cluster"),
        ("20.1.x-scala2.13", "19", "got one for 19"),
        ("custom:snapshot", "17.3", "got one for 17.3"),
        ("15.4.x-scala2.12", "15.4", "got '15.4.x-scala2.12': mlflow-skinny must be"),
        ("15.4.x-scala2.12", "freeze.txt", "mlflow-skinny must be"),
        ("15.4.x-cpu-ml-scala2.12", "freeze.txt", "the oldest supported one is 16.4"),
        ("14.3.x-scala2.12", "freeze.txt", "the oldest supported one is 16.4"),
        ("9.1.x-scala2.12", "17.3", "the oldest supported one is 16.4"),
    ],
)
def test_a_cluster_takes_the_wheelhouse_of_its_runtime(
    version: str, wheelhouse: str, reason: str | None
) -> None:
    refusal = refusal_of(version, wheelhouse)
    assert (refusal is None) == (reason is None)
    assert (reason or "") in (refusal or "")


@pytest.mark.parametrize("version", ["16.2", "20.x-scala2.13", "client.9.1", "custom:x"])
def test_an_unknown_runtime_is_none(version: str) -> None:
    assert find_runtime(version) is None


def test_the_running_version_comes_from_the_variables_of_databricks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DATABRICKS_RUNTIME_VERSION", raising=False)
    monkeypatch.delenv("DATABRICKS_ENV_VERSION", raising=False)
    assert running_version() is None
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    assert running_version() == "17.3"
    monkeypatch.setenv("DATABRICKS_ENV_VERSION", "4")
    assert running_version() == "client.4"


def test_a_listed_version_with_a_zero_stands_for_every_patch_release() -> None:
    assert is_same_version("0.67.3", "0.67.0")
    assert is_same_version("2.2.3", "2.2.3")
    assert not is_same_version("0.671.0", "0.67.0")
    assert not is_same_version("2.2.30", "2.2.3")
