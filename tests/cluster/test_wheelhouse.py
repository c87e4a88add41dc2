"""`dbx-aml cluster wheelhouse` fills a folder from an index, and the folder prepares a node."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import dbx_aml
from dbx_aml.cli.main import main
from dbx_aml.cluster.runtimes import known_runtimes, supported_runtimes
from dbx_aml.cluster.wheelhouse import _read_pins
from tests.support.node.index import Index, serve
from tests.support.node.node import LINK, Node
from tests.support.node.runtime import (
    PLUGIN,
    STAND_INS,
    stand_in_runtime,
    write_additions,
    write_plugin,
)
from tests.support.node.wheel import own_wheel, sha256, wheelhouse_variables, write_wheel

RunCommand = Callable[..., Result]
PACKAGES = {
    "azureml-mlflow": PLUGIN,
    "dbx-aml": dbx_aml.__version__,
    "jsonpickle": "4.1.4",
    "msrest": "0.7.1",
    "requests-oauthlib": "2.0.0",
}


@pytest.fixture
def run_command(tmp_path: Path) -> RunCommand:
    def run(*arguments: str) -> Result:
        folder = str(tmp_path / "wheelhouse")
        return CliRunner().invoke(main, ["cluster", "wheelhouse", "--folder", folder, *arguments])

    return run


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index without dbx-aml itself; pip and uv use no other index."""
    folder = tmp_path / "index"
    write_plugin(folder)
    write_wheel(folder, "azureml-mlflow", "1.22.0")
    write_additions(folder)
    for name, version in STAND_INS.items():
        write_wheel(folder, name, version)
    with serve(folder) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("UV_NO_CACHE", "1")
        monkeypatch.setenv("COLUMNS", "200")
        yield index


@pytest.fixture
def freeze(tmp_path: Path) -> list[str]:
    """Options that name the packages of the stand-in runtime."""
    file = tmp_path / "freeze.txt"
    lines = [f"{name}=={version}\n" for name, version in STAND_INS.items()]
    file.write_text("".join([*lines, "mine @ file:///x\n"]), encoding="utf-8-sig")
    return ["--constraints", str(file), "--python", "3.12"]


@pytest.mark.shell
@pytest.mark.slow
def test_the_command_fills_a_folder_that_prepares_a_node(
    run_command: RunCommand, index: Index, freeze: list[str], tmp_path: Path
) -> None:
    old_wheel = write_wheel(tmp_path / "wheelhouse", "jsonpickle", "3.0.0")
    result = run_command(*freeze)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{tmp_path}/wheelhouse for runtime freeze.txt, Python 3.12\n")
    for name, version in PACKAGES.items():
        assert name in result.stdout
        assert version in result.stdout
    assert "azure-storage-blob 12.28.0 stays" in result.stderr
    folder = tmp_path / "wheelhouse"
    assert not old_wheel.exists()
    files = sorted(file.name for file in folder.iterdir())
    assert len([name for name in files if name.endswith(".whl")]) == 5
    assert [name for name in files if not name.endswith(".whl")] == [
        "requirements.txt", "wheelhouse.json",
    ]  # fmt: skip
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert _read_pins("\n".join(lines)) == PACKAGES
    hashes = {line.rpartition("sha256:")[2] for line in lines}
    assert hashes == {sha256(file) for file in folder.glob("*.whl")}
    content = json.loads((folder / "wheelhouse.json").read_text())
    assert content == {"runtime": "freeze.txt", "python": "3.12", "packages": PACKAGES}
    node = Node(tmp_path / "node", stand_in_runtime(tmp_path / "python"))
    script_result = node.run({**LINK, **wheelhouse_variables(folder)})
    assert script_result.exit_code == 0, script_result.lines
    added = {name.replace("_", "-"): version for name, version in node.added_packages.items()}
    assert added == PACKAGES


def test_a_freeze_of_a_cluster_replaces_a_known_runtime(
    run_command: RunCommand, index: Index, freeze: list[str], tmp_path: Path
) -> None:
    write_wheel(index.folder, "jsonpickle", "4.9.0")
    write_wheel(index.folder, "requests-oauthlib", "1.3.1")
    with (tmp_path / "freeze.txt").open("a") as file:
        file.write("requests-oauthlib==1.3.1\n")
    arguments = [*freeze, "--json"]
    result = run_command(*arguments)
    assert result.exit_code == 0, result.output
    wheelhouse = json.loads(result.stdout)
    assert (wheelhouse["runtime"], wheelhouse["python"]) == ("freeze.txt", "3.12")
    expected = {**PACKAGES, "jsonpickle": "4.9.0"}
    del expected["requests-oauthlib"]
    assert wheelhouse["packages"] == expected
    (message,) = wheelhouse["newer_packages"]
    assert message.startswith(f"azure-storage-blob 12.28.0 stays, although azureml-mlflow {PLUGIN}")


@pytest.mark.parametrize("tag", ["manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux1"])
def test_a_native_wheel_that_runs_on_the_nodes_is_taken_whatever_its_tag(
    run_command: RunCommand, index: Index, freeze: list[str], tmp_path: Path, tag: str
) -> None:
    (index.folder / "jsonpickle-4.1.4-py3-none-any.whl").unlink()
    wheel = write_wheel(index.folder, "jsonpickle", "4.9.0")
    wheel.rename(index.folder / f"jsonpickle-4.9.0-cp312-cp312-{tag}_x86_64.whl")
    result = run_command(*freeze, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["packages"]["jsonpickle"] == "4.9.0"


def test_an_index_without_the_plugin_fails_with_the_requirement(
    run_command: RunCommand, index: Index, freeze: list[str], tmp_path: Path
) -> None:
    (index.folder / f"azureml_mlflow-{PLUGIN}-py3-none-any.whl").unlink()
    result = run_command(*freeze)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("dbx-aml: package index must have what is added: got ")
    assert "azureml-mlflow" in line


def test_the_index_is_never_asked_for_dbx_aml(
    run_command: RunCommand, index: Index, freeze: list[str], tmp_path: Path
) -> None:
    """Anybody may own its name there, and the nodes would run that package as root."""
    write_wheel(index.folder, "dbx-aml", "99.0")
    result = run_command(*freeze, "--json")
    assert json.loads(result.stdout)["packages"] == PACKAGES
    assert not [path for path in index.requests if "dbx" in path]
    (wheel,) = (tmp_path / "wheelhouse").glob("dbx_aml-*.whl")
    assert sha256(wheel) == sha256(own_wheel(tmp_path / "own"))


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        ([], 2, "wheelhouse must be for one runtime"),
        (["--runtime", "14.3"], 2, "runtime must be one of ['16.4', '16.4-ml', '17.3'"),
        (["--runtime", "18", "--constraints", "{file}"], 2, "must be for one runtime"),
        (["--constraints", "{file}"], 2, "constraints must have lines 'name==version': got none"),
        (["--runtime", "15.4"], 2, "got '15.4': mlflow-skinny must be <4,>=2.19 for dbx-aml"),
        (["--runtime", "serverless-5"], 2, "its release notes do not list its packages"),
    ],
)
def test_wrong_arguments_exit_with_one_line(
    run_command: RunCommand,
    index: Index,
    tmp_path: Path,
    arguments: list[str],
    exit_code: int,
    message: str,
) -> None:
    file = tmp_path / "empty.txt"
    file.write_text("nothing\n")
    result = run_command(*(argument.format(file=file) for argument in arguments))
    assert result.exit_code == exit_code, result.output
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "wheelhouse").exists()


@pytest.mark.nightly
@pytest.mark.parametrize(
    "runtime",
    supported_runtimes(),
)
def test_every_runtime_gets_the_same_plugin_and_none_of_its_own_packages(
    run_command: RunCommand, tmp_path: Path, runtime: str
) -> None:
    result = run_command("--runtime", runtime, "--json")
    assert result.exit_code == 0, result.output
    packages = json.loads(result.stdout)["packages"]
    assert packages["azureml-mlflow"] == PLUGIN
    assert not packages.keys() & known_runtimes()[runtime].packages.keys()
    # This package, and the 15 that runtime 16.4 lacks: its MLflow imports Flask for `spark_udf`.
    assert len(packages) <= 16
