"""A wheelhouse is filled by the command, from an index, and a node is prepared from it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import dbx_aml
from dbx_aml.cli.main import main
from dbx_aml.cluster.node.requirements import read_pins
from dbx_aml.cluster.runtimes import known_runtimes
from tests.support.node.index import Index, serve
from tests.support.node.node import LINK, Node
from tests.support.node.runtime import (
    PLUGIN,
    STAND_INS,
    stand_in_runtime,
    write_additions,
    write_plugin,
)
from tests.support.node.wheel import own_wheel, sha256, write_wheel

Run = Callable[..., Result]
PACKAGES = {
    "azureml-mlflow": PLUGIN,
    "dbx-aml": dbx_aml.__version__,
    "jsonpickle": "4.1.4",
    "msrest": "0.7.1",
    "requests-oauthlib": "2.0.0",
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def invoke(*arguments: str) -> Result:
        folder = str(tmp_path / "wheelhouse")
        return CliRunner().invoke(main, ["cluster", "wheelhouse", "--folder", folder, *arguments])

    return invoke


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index with everything but dbx-aml itself, which pip and uv here use alone."""
    folder = tmp_path / "index"
    write_plugin(folder)
    write_wheel(folder, "azureml-mlflow", "1.22.0")
    write_additions(folder)
    write_wheel(folder, "azure-core", "1.37.0")
    with serve(folder) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("UV_NO_CACHE", "1")
        monkeypatch.setenv("COLUMNS", "200")
        yield index


@pytest.mark.shell
def test_the_command_fills_a_folder_that_prepares_a_node(
    run: Run, index: Index, tmp_path: Path
) -> None:
    own = own_wheel(tmp_path / "own")
    stale = write_wheel(tmp_path / "wheelhouse", "jsonpickle", "3.0.0")
    done = run("--runtime", "18", "--wheel", str(own))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{tmp_path}/wheelhouse for runtime 18, Python 3.12\n")
    for name, version in PACKAGES.items():
        assert name in done.stdout
        assert version in done.stdout
    assert done.stderr.splitlines()[-1] == (
        f"azure-storage-blob 12.28.0 kept, although azureml-mlflow {PLUGIN} requires "
        "<=12.27.1,>=12.5.0; the init script proves on each node that this works"
    )
    folder = tmp_path / "wheelhouse"
    assert not stale.exists()
    files = sorted(file.name for file in folder.iterdir())
    assert len([name for name in files if name.endswith(".whl")]) == 5
    assert [name for name in files if not name.endswith(".whl")] == [
        "requirements.txt", "wheelhouse.json",
    ]  # fmt: skip
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert read_pins("\n".join(lines)) == PACKAGES
    hashes = {line.rpartition("sha256:")[2] for line in lines}
    assert hashes == {sha256(file) for file in folder.glob("*.whl")}
    about = json.loads((folder / "wheelhouse.json").read_text())
    assert about == {"runtime": "18", "python": "3.12", "packages": PACKAGES}
    node = Node(tmp_path / "node", stand_in_runtime(tmp_path / "python"))
    outcome = node.run({**LINK, "DBX_AML_WHEELHOUSE_PATH": str(folder)})
    assert outcome.code == 0, outcome.lines
    assert {name.replace("_", "-"): pin for name, pin in node.added.items()} == PACKAGES


def test_a_freeze_of_a_cluster_stands_for_its_runtime(
    run: Run, index: Index, tmp_path: Path
) -> None:
    write_wheel(index.folder, "jsonpickle", "4.9.0")
    freeze = tmp_path / "freeze.txt"
    lines = [f"{name}=={version}\n" for name, version in STAND_INS.items()]
    freeze.write_text("".join([*lines, "requests-oauthlib==1.3.1\n", "mine @ file:///x\n"]))
    write_wheel(index.folder, "requests-oauthlib", "1.3.1")
    own = str(own_wheel(tmp_path / "own"))
    done = run("--constraints", str(freeze), "--python", "3.12", "--wheel", own, "--json")
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert (made["runtime"], made["python"]) == ("freeze.txt", "3.12")
    expected = {**PACKAGES, "jsonpickle": "4.9.0"}
    del expected["requests-oauthlib"]
    assert made["packages"] == expected
    assert [one["package"] for one in made["kept_packages"]] == ["azure-storage-blob"]


def test_dbx_aml_itself_comes_from_the_index_unless_it_is_given(
    run: Run, index: Index, tmp_path: Path
) -> None:
    done = run("--runtime", "18")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("dbx-aml: package index must have what is added: got ")
    assert f"dbx-aml=={dbx_aml.__version__}" in line
    own_wheel(index.folder)
    assert run("--runtime", "18").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "wheelhouse must be for one runtime"),
        (["--runtime", "14.3"], 2, "runtime must be a known one: got '14.3'; use one of ['15.4'"),
        (["--runtime", "18", "--constraints", "{file}"], 2, "must be for one runtime"),
        (["--constraints", "{file}"], 2, "constraints must have lines 'name==version': got none"),
        (["--runtime", "15.4", "--wheel", "{own}"], 1, "mlflow-skinny must be <4,>=2.19 for dbx"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(
    run: Run, index: Index, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    file = tmp_path / "empty.txt"
    file.write_text("nothing\n")
    places = {"file": file, "own": own_wheel(tmp_path / "own")}
    done = run(*(word.format(**places) for word in arguments))
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "wheelhouse").exists()


RUNTIMES = [
    name for name, runtime in known_runtimes().items() if runtime.is_complete and name != "15.4"
]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_gets_the_plugin_of_this_release_beside_its_own_packages(
    run: Run, tmp_path: Path, runtime: str
) -> None:
    own = own_wheel(tmp_path / "own")
    done = run("--runtime", runtime, "--wheel", str(own), "--json")
    assert done.exit_code == 0, done.output
    packages = json.loads(done.stdout)["packages"]
    assert packages["azureml-mlflow"] == PLUGIN
    assert not packages.keys() & known_runtimes()[runtime].packages.keys()
    assert len(packages) <= 13
