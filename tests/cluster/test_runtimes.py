"""Databricks Runtimes: their keys in every form, and what each brings."""

import pytest

from dbx_aml._common.databricks_runtime import running_version
from dbx_aml.cluster.runtime_packages import runtime_packages
from dbx_aml.cluster.runtimes import (
    RUNTIMES,
    find_runtime,
    runtime_key,
    same_version,
)


@pytest.mark.parametrize(
    ("version", "key"),
    [
        ("17.3", "17.3"),
        ("17.3.x-scala2.13", "17.3"),
        ("16.4.x-cpu-ml-scala2.12", "16.4"),
        ("15.4.x-aarch64-photon-scala2.12", "15.4"),
        ("18.x-scala2.13", "18"),
        ("18.x-photon-scala2", "18"),
        ("18.2", "18"),
        ("18", "18"),
        ("19.x-gpu-ml-scala2.13", "19"),
        ("client.4", "client.4"),
        ("client.4.9", "client.4"),
        ("client.5-gpu", "client.5"),
        ("16.2", "16.2"),
        ("17.x-scala2.13", None),
        ("17", None),
        ("custom:snapshot__17.3", None),
        ("17.3rc1", None),
        ("", None),
    ],
)
def test_a_version_has_its_key_in_every_form_that_databricks_writes(
    version: str, key: str | None
) -> None:
    assert runtime_key(version) == key


def test_every_known_runtime_is_found_by_its_own_key_with_all_its_packages() -> None:
    assert len(RUNTIMES) == 8
    names = set(RUNTIMES["16.4"].packages)
    for key, runtime in RUNTIMES.items():
        assert find_runtime(key) is runtime
        assert set(runtime.packages) == names
        assert (runtime.spark is None) == key.startswith("client.")


def test_a_runtime_brings_what_its_release_notes_say() -> None:
    runtime = find_runtime("18.x-scala2.13")
    assert runtime is not None
    assert (runtime.name, runtime.python, runtime.spark) == ("18 LTS", "3.12", "4.1.0")
    assert runtime.packages == {
        "mlflow-skinny": "3.8.1",
        "pandas": "2.2.3",
        "pyarrow": "21.0.0",
        "numpy": "2.1.3",
        "databricks-sdk": "0.67",
        "azure-storage-blob": "12.28.0",
    }


@pytest.mark.parametrize("version", ["16.2", "20.x-scala2.13", "client.9.1", "custom:x"])
def test_an_unknown_runtime_is_none(version: str) -> None:
    assert find_runtime(version) is None


def test_variables_say_which_runtime_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABRICKS_RUNTIME_VERSION", raising=False)
    monkeypatch.delenv("DATABRICKS_ENV_VERSION", raising=False)
    assert running_version() is None
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    assert running_version() == "17.3"
    monkeypatch.setenv("DATABRICKS_ENV_VERSION", "4")
    assert running_version() == "client.4"


def test_a_version_that_is_known_by_its_minor_fits_every_patch_of_it() -> None:
    assert same_version("0.67.0", "0.67")
    assert same_version("2.2.3", "2.2.3")
    assert not same_version("0.671.0", "0.67")
    assert not same_version("2.2.30", "2.2.3")


def test_the_full_lists_of_packages_say_the_same() -> None:
    listed = runtime_packages()
    seen = 0
    for key, runtime in RUNTIMES.items():
        full = listed.get(key.replace("client.", "serverless-"))
        if full is None:
            continue
        assert full.python == runtime.python
        for name, known in runtime.packages.items():
            if name in full.versions:
                assert same_version(full.versions[name], known), f"{key} {name}"
                seen += 1
    assert seen >= 30
