"""The environment of a served model: resolved once, named by its content."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from dbx_aml._common import uv
from dbx_aml._common.errors import (
    ArgumentError,
    ModelNotFoundError,
    PackagesError,
    ProgramError,
    ServingError,
    UnsolvableRequirementsError,
)
from dbx_aml.link.link import Link
from dbx_aml.local.pinned_environment import PinnedEnvironment
from dbx_aml.serving.aml_resources import AmlResources
from dbx_aml.serving.environment import (
    read_python_version,
    register_environment,
    resolve_environment,
)


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, ...]]:
    """The calls of uv; a call answers with pins, and runs nothing."""
    calls: list[tuple[str, ...]] = []

    def run(arguments, timeout_s, *, input_text=""):
        calls.append(tuple(arguments))
        return "pandas==2.3.3\nsix==1.17.0\n"

    monkeypatch.setattr(uv, "run_uv", run)
    return calls


def write_model(folder: Path, requirements: str | None, python: str = "3.12.7") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n"
        f"    python_version: {python}\n"
    )
    if requirements is not None:
        (folder / "requirements.txt").write_text(requirements)
    return folder


def test_the_requirements_of_model_and_server_are_resolved_for_linux_and_the_python_of_the_model(
    tmp_path, environments_folder, calls
) -> None:
    model = write_model(tmp_path / "model", "pandas\n")
    environment = resolve_environment(model)
    assert environment == PinnedEnvironment(
        python="3.12", requirements=("pandas==2.3.3", "six==1.17.0")
    )
    (call,) = calls
    assert call[:3] == ("pip", "compile", "-")
    assert call[-1] == str(model / "requirements.txt")
    options = dict(pairwise(call))
    assert options["--python-version"] == "3.12"
    assert options["--python-platform"] == "x86_64-manylinux_2_28"


def test_the_first_result_for_the_same_requirements_is_kept(
    tmp_path, environments_folder, calls
) -> None:
    model = write_model(tmp_path / "model", "pandas\n")
    first = resolve_environment(model)
    assert resolve_environment(write_model(tmp_path / "same", "pandas\n")) == first
    assert len(calls) == 1
    resolve_environment(model, python="3.11")
    write_model(tmp_path / "model", "-c constraints.txt\npandas<3\n")
    resolve_environment(model)
    (model / "constraints.txt").write_text("six<2\n")
    resolve_environment(model)
    assert len(calls) == 4


def test_a_change_of_an_included_file_is_a_change_of_the_requirements(
    tmp_path, environments_folder, calls
) -> None:
    model = write_model(tmp_path / "model", "--requirement=../base.txt  # shared\n")
    for text in ("pandas==2.3.2\n", "-r model/requirements.txt\n-i https://a.example\npandas\n"):
        (tmp_path / "base.txt").write_text(text)
        environment = resolve_environment(model)
    assert len(calls) == 2
    assert environment.requirements[0] == "-i https://a.example"


def test_requirements_in_another_encoding_are_refused(tmp_path, environments_folder, calls) -> None:
    model = write_model(tmp_path / "model", "-r base.txt\n")
    (model / "base.txt").write_text("pandas\n", encoding="utf-16")
    with pytest.raises(PackagesError, match=r"a readable text in UTF-8: got '.*base\.txt': .*"):
        resolve_environment(model)


def test_options_of_package_indexes_stay_with_the_pins(
    tmp_path, environments_folder, calls
) -> None:
    text = "--extra-index-url https://wheels.contoso.com/simple\n-c constraints.txt\npandas\n"
    environment = resolve_environment(write_model(tmp_path / "model", text))
    assert environment.requirements[0] == "--extra-index-url https://wheels.contoso.com/simple"
    assert environment.requirements[1:] == ("pandas==2.3.3", "six==1.17.0")


def test_the_conda_file_has_python_and_every_pin_and_the_hash_changes_with_both() -> None:
    lines = ("pandas==2.3.3", "tzdata==2025.2 ; sys_platform == 'win32'")
    environment = PinnedEnvironment(python="3.12", requirements=lines)
    content = yaml.safe_load(environment.conda_dependencies)
    assert content["channels"] == ["conda-forge"]
    assert content["dependencies"] == ["python=3.12", "pip", {"pip": list(lines)}]
    assert environment.requirements_file == f"{lines[0]}\n{lines[1]}\n"
    hashes = {
        environment.hash,
        PinnedEnvironment(python="3.11", requirements=lines).hash,
        PinnedEnvironment(python="3.12", requirements=lines[:1]).hash,
    }
    assert len(hashes) == 3
    assert PinnedEnvironment(python="3.12", requirements=lines).hash == environment.hash


def test_a_login_in_the_url_of_an_index_is_not_registered() -> None:
    line = "--extra-index-url https://ana:pat0123456789@pkgs.contoso.com/simple"
    environment = PinnedEnvironment(python="3.12", requirements=(line, "six==1.17.0"))
    # A request would fail without a workspace.
    with pytest.raises(ArgumentError, match="requirements must have no login") as caught:
        register_environment(AmlResources(Link()), "dbx-aml-serving", environment)
    assert "pkgs.contoso.com" in str(caught.value)
    assert "pat0123456789" not in str(caught.value)


def test_requirements_that_contradict_the_scoring_server_are_refused_with_the_reason(
    tmp_path, environments_folder
) -> None:
    model = write_model(tmp_path / "model", "pydantic<2\n")
    with pytest.raises(UnsolvableRequirementsError) as caught:
        resolve_environment(model)
    message = str(caught.value)
    assert "go together with Azure ML's scoring server on Python 3.12" in message
    assert "azureml-inference-server-http==1.5.1" in message
    assert "you require pydantic<2" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("requirements", "python", "error", "message"),
    [
        (None, "3.12.7", ServingError, "must have a readable requirements.txt"),
        ("pandas\n", None, ModelNotFoundError, "must have a readable MLmodel file"),
    ],
)
def test_a_folder_that_is_no_whole_model_is_refused(
    tmp_path, environments_folder, calls, requirements, python, error, message
) -> None:
    model = write_model(tmp_path / "model", requirements)
    if python is None:
        (model / "MLmodel").unlink()
    with pytest.raises(error, match=message):
        resolve_environment(model)
    assert calls == []


def test_a_model_without_the_pyfunc_flavor_is_refused(tmp_path) -> None:
    (tmp_path / "MLmodel").write_text("flavors:\n  sklearn:\n    sklearn_version: 1.5\n")
    with pytest.raises(ServingError, match=r"python_function flavor: got \['sklearn'\]"):
        read_python_version(tmp_path)


def test_a_package_index_without_an_answer_is_no_fault_of_the_model(
    tmp_path, environments_folder, monkeypatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    with pytest.raises(PackagesError, match="package index must answer") as caught:
        resolve_environment(write_model(tmp_path / "model", "six\n"))
    assert not isinstance(caught.value, UnsolvableRequirementsError)
    assert not list(environments_folder.rglob("*.txt"))


def test_a_missing_uv_is_told_as_such(tmp_path, environments_folder, monkeypatch) -> None:
    monkeypatch.setattr(uv, "_uv_command", lambda: [str(tmp_path / "absent")])
    model = write_model(tmp_path / "model", "six\n")
    with pytest.raises(ProgramError, match="program must start"):
        resolve_environment(model)
