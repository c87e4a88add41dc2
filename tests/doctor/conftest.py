"""Fixtures of the doctor's tests: a clean environment, single checks, the two stand-ins."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dbx_aml import AmlWorkspace, Link
from dbx_aml.doctor import machine
from dbx_aml.doctor import run as doctor_run
from dbx_aml.doctor.check_result import CheckResult
from dbx_aml.doctor.checks import CheckContext
from tests.support.azureml import AzureMl
from tests.support.databricks import Databricks
from tests.support.isolation import isolate_from_machine

RunCheck = Callable[..., CheckResult]
InstallPackages = Callable[..., None]
SetFreeDisk = Callable[[float], None]


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current folder, without settings, and an environment without Azure or Databricks."""
    isolate_from_machine(monkeypatch, tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture(autouse=True)
def free_disk(monkeypatch: pytest.MonkeyPatch) -> SetFreeDisk:
    """Set the free GiB of the disk: 100 by default, whatever the machine of the tests has."""

    def set_free_disk(free_gib: float) -> None:
        usage = SimpleNamespace(free=free_gib * 2**30)
        monkeypatch.setattr(machine, "disk_usage", lambda folder: usage)

    set_free_disk(100.0)
    return set_free_disk


@pytest.fixture
def run_check() -> RunCheck:
    """Run one check with the settings of the environment, or with a link."""

    def run_one_check(name: str, link: Link | None = None, **options: str) -> CheckResult:
        context = CheckContext(
            link=link or Link.load(), deadline=time.monotonic() + doctor_run.TIMEOUT_S, **options
        )
        return doctor_run._run_check(name, doctor_run.CHECKS[name], context)

    return run_one_check


@pytest.fixture
def aml(azureml: AzureMl, monkeypatch: pytest.MonkeyPatch) -> AzureMl:
    """The Azure ML stand-in; the link of the current folder has only Azure ML."""
    for variable, value in azureml.environment().items():
        monkeypatch.setenv(variable, value)
    Link(mode="aml", aml_workspace=AmlWorkspace.from_tracking_uri(azureml.tracking_uri)).save(".")
    return azureml


@pytest.fixture
def databricks_only(databricks: Databricks, monkeypatch: pytest.MonkeyPatch) -> Databricks:
    """The Databricks stand-in; the link of the current folder has only Databricks."""
    Link().save(".")
    return databricks


@pytest.fixture
def install_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> InstallPackages:
    """Make packages appear as installed in other versions, as `importlib.metadata` reads them."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def write_metadata(**versions: str) -> None:
        for name, version in versions.items():
            info = folder / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
            )

    return write_metadata
