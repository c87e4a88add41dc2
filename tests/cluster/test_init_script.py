"""The init script runs for real, in throw-away nodes with a Python and a pip of their own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import dbx_aml
from dbx_aml import Link
from dbx_aml.cluster.init_script import read_init_script, render
from dbx_aml.cluster.node.marker import KeptPackage
from dbx_aml.cluster.node.pip import pip_errors
from dbx_aml.cluster.node.requirements import Wheel
from tests.support.node.index import Index, serve
from tests.support.node.node import LINK, Node, Outcome
from tests.support.node.runtime import (
    PLUGIN,
    site_packages,
    stand_in_runtime,
    write_additions,
    write_plugin,
)
from tests.support.node.wheel import own_wheel, sha256, write_wheel

pytestmark = pytest.mark.shell

ROOT = Path(__file__).parents[2]
VERSION = dbx_aml.__version__
ADDED = {
    "azureml_mlflow": PLUGIN,
    "dbx_aml": VERSION,
    "jsonpickle": "4.1.4",
    "msrest": "0.7.1",
    "requests_oauthlib": "2.0.0",
}
INSTALLED = {name.replace("_", "-"): version for name, version in ADDED.items()}
KEPT_BLOB = KeptPackage(
    package="azure-storage-blob",
    version="12.28.0",
    required_by=f"azureml-mlflow {PLUGIN}",
    requirement="<=12.27.1,>=12.5.0",
)
URI = (
    "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/"
    "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42/resourceGroups/rg-ml/providers/"
    "Microsoft.MachineLearningServices/workspaces/mlw-team"
)
# Nothing but loopback, which a new network has switched off (SIOCSIFFLAGS: up, running).
_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))
os.execvp(sys.argv[1], sys.argv[1:])
"""
NO_NETWORK = ("unshare", "-n", sys.executable, "-c", _LOOPBACK)
RETRIES = {"TEST_DBX_AML_ATTEMPTS": "4"}
Fresh = Callable[..., Node]


def write_wheelhouse(folder: Path, own: Path) -> Path:
    """Fill a folder as 'dbx-aml cluster wheelhouse' does."""
    files = [Path(shutil.copy(own, folder)), write_plugin(folder), *write_additions(folder)]
    write_requirements(folder, files)
    return folder


def write_requirements(folder: Path, files: list[Path]) -> None:
    wheels = [(Wheel.from_file(file), sha256(file)) for file in files]
    lines = [f"{one.name}=={one.version} --hash=sha256:{digest}\n" for one, digest in wheels]
    (folder / "requirements.txt").write_text("".join(lines))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in_runtime(tmp_path_factory.mktemp("runtime") / "python")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package's wheel."""
    return own_wheel(tmp_path_factory.mktemp("own"))


@pytest.fixture
def fresh(tmp_path: Path, runtime: Path) -> Fresh:
    def make(name: str = "node", **arguments: str) -> Node:
        return Node(tmp_path / name, runtime, **arguments)

    return make


@pytest.fixture
def node(fresh: Fresh) -> Node:
    return fresh()


@pytest.fixture
def wheelhouse(tmp_path: Path, own: Path) -> Path:
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    return write_wheelhouse(folder, own)


@pytest.fixture
def index(tmp_path: Path, own: Path) -> Iterator[Index]:
    """An index with everything, and the plugin of 2021 too."""
    folder = tmp_path / "index"
    write_plugin(folder)
    write_wheel(folder, "azureml-mlflow", "1.22.0")
    write_additions(folder)
    shutil.copy(own, folder)
    with serve(folder) as index:
        yield index


def of_wheelhouse(folder: Path, **more: str) -> dict[str, str]:
    return {**LINK, "DBX_AML_WHEELHOUSE_PATH": str(folder), **more}


def of_index(index: Index, **more: str) -> dict[str, str]:
    return {**LINK, "PIP_INDEX_URL": index.url, **more}


def link(**more: str) -> Link:
    return Link.from_file(
        None, **{n.removeprefix("DBX_AML_").lower(): v for n, v in LINK.items()} | more
    )


def assert_failed_and_unchanged(node: Node, outcome: Outcome, reason: str) -> None:
    """The cluster starts, the marker says why it is not prepared, and nothing has changed."""
    assert outcome.code == 0, outcome.lines
    assert outcome.stdout == ""
    assert outcome.last == f"the cluster starts without dbx-aml: {node.marker.reason}"
    assert reason in (node.marker.reason or "")
    assert node.marker.status == "failed"
    assert dict(node.marker.installed) == {}
    assert node.is_as_before()
    assert node.spark_env.read_text() == "export SPARK_LOCAL_DIRS=/local_disk0\n"


def test_the_file_is_one_small_readable_script() -> None:
    text = read_init_script()
    assert (ROOT / "init_scripts" / "dbx_aml_init.sh").read_text("utf-8") == text
    assert len(text.encode()) < 16 * 1024
    assert len(render(link()).encode()) < 64 * 1024
    lines = text.splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[-1] == 'main "$@"'
    assert "\nset -euo pipefail\n" in text
    assert not re.search(r"^[^#]*\b(eval|set -x)\b", text, re.MULTILINE)
    for word in ("# Reads:", "# Writes:", "# Exit:"):
        assert word in text
    # setup.py says it once, and the script must name it without a Python to ask.
    assert f"\nVERSION={VERSION}\n" in text


def test_a_rendered_script_is_as_clean_as_the_one_it_is_made_from(tmp_path: Path) -> None:
    file = tmp_path / "rendered.sh"
    file.write_text(render(link(experiment="it's größer"), wheelhouse_path="/Volumes/a b"), "utf-8")
    command = [str(Path(sys.executable).with_name("shellcheck")), "--severity=style", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_node_is_prepared_from_a_wheelhouse_without_any_network(
    node: Node, wheelhouse: Path
) -> None:
    outcome = node.run(of_wheelhouse(wheelhouse), NO_NETWORK)
    assert (outcome.code, outcome.stdout) == (0, ""), outcome.lines
    assert node.added == ADDED
    marker = node.marker
    assert (marker.status, marker.reason, marker.version) == ("ok", None, VERSION)
    assert (marker.runtime, marker.is_driver, marker.messages) == ("18.0", True, ())
    assert marker.packages_from == f"wheelhouse {wheelhouse}"
    assert dict(marker.installed) == INSTALLED
    assert marker.kept_packages == (KEPT_BLOB,)
    assert [*marker.steps] == ["fetch", "plan", "install", "check", "configure"]
    assert all(0 <= seconds < 120 for seconds in marker.steps.values())
    config = node.home / "dbx_aml" / "config.json"
    variables = {
        "DBX_AML_CONFIG": str(config),
        "MLFLOW_TRACKING_URI": URI,
        "MLFLOW_REGISTRY_URI": URI,
        "AZUREML_CURRENT_CLOUD": "AzureCloud",
        "DBX_AML_RETRY_TIMEOUT_S": "120",
    }
    assert dict(marker.variables) == variables
    assert exported(node) == variables
    assert Link.from_file(config) == link()


def exported(node: Node) -> dict[str, str]:
    """Return what a process gets that is started after `spark-env.sh`, in plain bash."""
    done = subprocess.run(
        ["env", "-i", "bash", "-c", '. "$1" && env -0', "-", str(node.spark_env)],
        capture_output=True,
        text=True,
        check=True,
    )
    values = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    assert values["SPARK_LOCAL_DIRS"] == "/local_disk0"
    return {name: values[name] for name in values if name.startswith(("DBX", "MLFLOW", "AZURE"))}


def test_a_second_run_changes_nothing_within_a_second(node: Node, wheelhouse: Path) -> None:
    def everything() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in node.home.rglob("*") if file.is_file()}

    assert node.run(of_wheelhouse(wheelhouse)).code == 0
    before = everything()
    started = time.monotonic()
    outcome = node.run(of_wheelhouse(wheelhouse))
    assert time.monotonic() - started < 1
    assert (outcome.code, len(outcome.lines)) == (0, 1)
    assert outcome.last.startswith("nothing to do")
    assert everything() == before


def test_other_settings_replace_the_block_of_variables(node: Node, wheelhouse: Path) -> None:
    assert node.run(of_wheelhouse(wheelhouse)).code == 0
    node.spark_env.write_text(node.spark_env.read_text() + "export AFTER=1\n")
    changed = of_wheelhouse(wheelhouse, DBX_AML_MODE="dual", DBX_AML_REGISTRY="databricks")
    outcome = node.run(changed)
    assert outcome.code == 0
    assert node.added == ADDED
    text = node.spark_env.read_text()
    assert text.count("# >>> dbx-aml >>>") == text.count("# <<< dbx-aml <<<") == 1
    assert "export AFTER=1\n" in text
    values = exported(node)
    assert (values["MLFLOW_TRACKING_URI"], values["MLFLOW_REGISTRY_URI"]) == ("databricks",) * 2


def test_a_block_or_a_package_that_was_removed_is_put_back(node: Node, wheelhouse: Path) -> None:
    assert node.run(of_wheelhouse(wheelhouse)).code == 0
    shutil.rmtree(site_packages(node.home / "python") / "msrest-0.7.1.dist-info")
    node.spark_env.write_text("export SPARK_LOCAL_DIRS=/local_disk0\n")
    outcome = node.run(of_wheelhouse(wheelhouse))
    assert outcome.last.startswith("done in")
    assert node.added == ADDED
    assert exported(node)["MLFLOW_TRACKING_URI"] == URI


def test_the_index_is_used_where_there_is_no_wheelhouse(node: Node, index: Index) -> None:
    index.failures = 3
    outcome = node.run({**of_index(index), **RETRIES, "DB_IS_DRIVER": "FALSE"})
    assert outcome.code == 0, outcome.lines
    assert sum("attempt 1 of 4 failed, next in 0 s" in line for line in outcome.lines) == 1
    assert node.added == ADDED
    marker = node.marker
    assert (marker.status, marker.packages_from, marker.is_driver) == ("ok", "index", False)
    assert marker.kept_packages == (KEPT_BLOB,)
    assert not [path for path in index.requests if "pandas" in path]


def test_a_slow_index_is_waited_for_and_the_steps_say_how_long(node: Node, index: Index) -> None:
    index.delay_s = 0.1
    assert node.run(of_index(index)).code == 0
    assert node.added == ADDED
    assert node.marker.steps["fetch"] > 0.2


def test_an_index_that_never_answers_is_given_up(node: Node, index: Index) -> None:
    index.delay_s = 1.0
    outcome = node.run(of_index(index, PIP_TIMEOUT="0.1", **RETRIES))
    assert_failed_and_unchanged(node, outcome, f"package index must have dbx-aml {VERSION}")
    assert sum("attempt" in line for line in outcome.lines) == 3


@pytest.mark.parametrize("choice", ["continue", "stop"])
def test_without_a_network_the_setting_says_whether_the_cluster_starts(
    node: Node, choice: str
) -> None:
    url = "http://ana:s3cret-of-the-index@127.0.0.1:9/simple/"
    variables = {**LINK, "PIP_INDEX_URL": url, "DBX_AML_ON_FAILURE": choice}
    outcome = node.run(variables)
    reason = f"package index must have dbx-aml {VERSION}"
    if choice == "continue":
        assert_failed_and_unchanged(node, outcome, reason)
    else:
        assert outcome.code == 1
        assert outcome.last == node.marker.reason
        assert outcome.last.startswith(reason)
        assert node.is_as_before()
    assert "s3cret" not in "\n".join(outcome.lines) + node.marker_file.read_text()


def test_an_index_that_has_only_the_plugin_of_2021_is_refused(node: Node, index: Index) -> None:
    (index.folder / f"azureml_mlflow-{PLUGIN}-py3-none-any.whl").unlink()
    outcome = node.run(of_index(index))
    assert_failed_and_unchanged(node, outcome, f"azureml-mlflow<2,>={PLUGIN}")


def test_a_wheel_that_an_index_changed_is_refused(node: Node, index: Index) -> None:
    index.corrupt = "msrest"
    outcome = node.run(of_index(index))
    assert_failed_and_unchanged(node, outcome, "DO NOT MATCH THE HASHES")


def test_a_wheel_whose_hash_is_another_is_refused(node: Node, wheelhouse: Path) -> None:
    write_wheel(wheelhouse, "jsonpickle", "4.1.4", (), {"jsonpickle.py": "other = 1"})
    outcome = node.run(of_wheelhouse(wheelhouse))
    assert_failed_and_unchanged(node, outcome, "DO NOT MATCH THE HASHES")


def test_dbx_aml_itself_with_another_hash_is_not_even_started(
    node: Node, wheelhouse: Path, own: Path
) -> None:
    with (wheelhouse / own.name).open("ab") as stream:
        stream.write(b"?")
    outcome = node.run(of_wheelhouse(wheelhouse))
    assert_failed_and_unchanged(node, outcome, "must hold dbx-aml's wheel with the hash")


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("requirements.txt", "wheelhouse must have a readable requirements.txt"),
        ("msrest-0.7.1-py3-none-any.whl", "wheelhouse must hold msrest 0.7.1"),
        (
            f"azureml_mlflow-{PLUGIN}-py3-none-any.whl",
            f"wheelhouse must hold azureml-mlflow {PLUGIN}",
        ),
    ],
)
def test_a_wheelhouse_that_lacks_something_says_what(
    node: Node, wheelhouse: Path, missing: str, reason: str
) -> None:
    (wheelhouse / missing).unlink()
    assert_failed_and_unchanged(node, node.run(of_wheelhouse(wheelhouse)), reason)


def test_a_wheelhouse_of_another_runtime_is_rolled_back(node: Node, wheelhouse: Path) -> None:
    files = [file for file in wheelhouse.glob("*.whl") if "oauthlib" not in file.name]
    write_requirements(wheelhouse, files)
    outcome = node.run(of_wheelhouse(wheelhouse))
    reason = "msrest 0.7.1 requires requests-oauthlib>=0.5.0, none is installed"
    assert_failed_and_unchanged(node, outcome, reason)
    assert "removing [" in "\n".join(outcome.lines)


def test_a_wheel_that_would_write_over_a_file_of_the_runtime_is_refused(
    node: Node, wheelhouse: Path
) -> None:
    files = {"jsonpickle.py": "", "azure/storage/blob/__init__.py": "other = 1"}
    write_wheel(wheelhouse, "jsonpickle", "4.1.4", (), files)
    write_requirements(wheelhouse, list(wheelhouse.glob("*.whl")))
    outcome = node.run(of_wheelhouse(wheelhouse))
    reason = "azure/storage/blob/__init__.py belongs to azure-storage-blob"
    assert_failed_and_unchanged(node, outcome, reason)


@pytest.mark.parametrize("is_first", [True, False])
def test_what_does_not_work_is_rolled_back(node: Node, wheelhouse: Path, is_first: bool) -> None:
    if not is_first:
        assert node.run(of_wheelhouse(wheelhouse)).code == 0
        assert node.added == ADDED
    broken = "raise ValueError('no such function in the blob client')"
    write_plugin(wheelhouse, "1.62.0.post7", broken=broken)
    (wheelhouse / f"azureml_mlflow-{PLUGIN}-py3-none-any.whl").unlink()
    write_requirements(wheelhouse, list(wheelhouse.glob("*.whl")))
    outcome = node.run(of_wheelhouse(wheelhouse))
    assert_failed_and_unchanged(node, outcome, "no such function in the blob client")
    assert "removing [" in "\n".join(outcome.lines)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_the_runtime_as_it_was(
    small_disk: Path, runtime: Path, wheelhouse: Path
) -> None:
    copy = shutil.copytree(runtime, small_disk / "python", symlinks=True)
    node = Node(small_disk / "node", copy)
    room = shutil.disk_usage(small_disk).free - 100 * 1024
    (small_disk / "filler").write_bytes(b"0" * room)
    outcome = node.run({**of_wheelhouse(wheelhouse), "PYTHONDONTWRITEBYTECODE": "1"})
    assert_failed_and_unchanged(node, outcome, "No space left on device")
    (small_disk / "filler").unlink()
    assert node.run(of_wheelhouse(wheelhouse)).last.startswith("done in")
    assert node.added == ADDED


def test_a_full_temporary_folder_does_not_keep_the_cluster_from_starting(
    node: Node, small_disk: Path, wheelhouse: Path
) -> None:
    (small_disk / "filler").write_bytes(b"0" * (shutil.disk_usage(small_disk).free))
    outcome = node.run({**of_wheelhouse(wheelhouse), "TMPDIR": str(small_disk)})
    assert_failed_and_unchanged(node, outcome, "have room for it")
    outcome = node.run({**of_wheelhouse(wheelhouse), "TMPDIR": "/no/such"})
    assert_failed_and_unchanged(node, outcome, "a temporary folder must be writable")


def test_packages_that_cannot_be_written_are_said(node: Node, wheelhouse: Path) -> None:
    python = node.home / "python"
    bind = f"mount --bind '{python}' '{python}' && mount -o remount,ro,bind '{python}'"
    prefix = ("unshare", "-m", "sh", "-c", f'{bind} && exec "$@"', "-")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    outcome = node.run(of_wheelhouse(wheelhouse), prefix)
    assert_failed_and_unchanged(node, outcome, f"{site_packages(python)} must be writable")


def test_a_run_that_was_killed_half_way_is_made_good_by_the_next(
    node: Node, wheelhouse: Path
) -> None:
    files = {f"msrest/part{number}.py": "x = 1\n" for number in range(2000)}
    write_wheel(wheelhouse, "msrest", "0.7.1", ("azure-core>=1.24.0",), files)
    write_requirements(wheelhouse, list(wheelhouse.glob("*.whl")))
    environment = node.environment(of_wheelhouse(wheelhouse))
    running = subprocess.Popen(
        node.command(), env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    place = site_packages(node.home / "python") / "msrest"
    deadline = time.monotonic() + 60
    while not place.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert node.marker.status == "started"
    assert dict(node.marker.installed) == INSTALLED
    assert len(list(place.glob("*.py"))) < len(files)
    # What it looks like when the metadata is there, but the list of files is not yet.
    half = place.parent / "jsonpickle-4.1.4.dist-info"
    half.mkdir(exist_ok=True)
    (half / "METADATA").write_text("Metadata-Version: 2.1\nName: jsonpickle\nVersion: 4.1.4\n")
    (half / "RECORD").unlink(missing_ok=True)
    outcome = node.run(of_wheelhouse(wheelhouse))
    assert outcome.last.startswith("done in"), outcome.lines
    assert node.added == ADDED
    assert len(list(place.glob("*.py"))) == len(files)
    assert (half / "RECORD").exists()


def test_two_nodes_at_once_share_a_wheelhouse(fresh: Fresh, wheelhouse: Path) -> None:
    nodes = [fresh("driver"), fresh("worker")]
    before = {file: file.stat().st_mtime_ns for file in wheelhouse.iterdir()}
    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(lambda one: one.run(of_wheelhouse(wheelhouse)), nodes))
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert [one.added for one in nodes] == [ADDED, ADDED]
    assert {file: file.stat().st_mtime_ns for file in wheelhouse.iterdir()} == before


def test_a_rendered_script_needs_no_variable_and_an_unrendered_one_says_so(
    node: Node, wheelhouse: Path
) -> None:
    """Runtime 19 in standard access mode: own variables do not reach the script."""
    outcome = node.run({})
    assert outcome.code == 2
    assert "got no variable DBX_AML_*" in outcome.last
    assert "dbx-aml cluster init-script" in outcome.last
    assert node.is_as_before()
    node.script.write_text(render(link(), wheelhouse_path=str(wheelhouse)), encoding="utf-8")
    assert node.run({}).code == 0
    assert node.added == ADDED
    assert exported(node)["MLFLOW_TRACKING_URI"] == URI


def test_settings_keep_spaces_quotes_and_other_alphabets(
    tmp_path: Path, node: Node, wheelhouse: Path
) -> None:
    name = 'o\'brien "größe" $(touch pwned) `touch pwned` 数据 \\ wheelhouse'
    odd = wheelhouse.rename(tmp_path / name)
    experiment = '/Users/ana@contoso.com/it\'s "größer" $(touch pwned) 数据'
    made = link(experiment=experiment, databricks_tracking_uri="sqlite:////tmp/a b's $HOME.db")
    changed = Link.from_file(
        None,
        mode="dual",
        aml_workspace=made.aml_workspace,
        databricks_tracking_uri=made.databricks_tracking_uri,
        experiment=experiment,
    )
    node.script.write_text(render(changed, wheelhouse_path=str(odd)), encoding="utf-8")
    outcome = node.run({})
    assert outcome.code == 0, outcome.lines
    assert Link.from_file(node.home / "dbx_aml" / "config.json").experiment == experiment
    assert exported(node)["MLFLOW_TRACKING_URI"] == "sqlite:////tmp/a b's $HOME.db"
    assert node.marker.packages_from == f"wheelhouse {odd}"
    assert not list(tmp_path.rglob("pwned"))


def test_a_variable_of_the_cluster_goes_before_what_was_rendered(
    node: Node, wheelhouse: Path
) -> None:
    node.script.write_text(render(link(), wheelhouse_path="/no/such"), encoding="utf-8")
    variables = {"DBX_AML_WHEELHOUSE_PATH": str(wheelhouse), "DBX_AML_RETRY_TIMEOUT_S": "7"}
    assert node.run(variables).code == 0
    assert node.added == ADDED
    assert exported(node)["DBX_AML_RETRY_TIMEOUT_S"] == "7"


def test_a_link_that_is_not_mounted_is_waited_for_and_said(node: Node, tmp_path: Path) -> None:
    outcome = node.run({"DBX_AML_CONFIG": str(tmp_path / "config.json"), **RETRIES})
    assert_failed_and_unchanged(node, outcome, "DBX_AML_CONFIG must be a file or folder")
    assert sum("attempt" in line for line in outcome.lines) == 3


def test_a_link_without_region_says_that_its_tracking_uri_is_not_set(
    node: Node, wheelhouse: Path
) -> None:
    outcome = node.run({**of_wheelhouse(wheelhouse), "DBX_AML_REGION": ""})
    assert outcome.code == 0, outcome.lines
    assert len(node.marker.messages) == 1
    assert "the link has no region" in node.marker.messages[0]
    assert "MLFLOW_TRACKING_URI" not in exported(node)


def test_a_secret_of_the_cluster_is_written_nowhere(node: Node, wheelhouse: Path) -> None:
    secret = "Xyz8Q~0123456789012345678901234567890a"
    more = {"AZURE_CLIENT_SECRET": secret, "DBX_AML_CLIENT_SECRET": "env:AZURE_CLIENT_SECRET"}
    outcome = node.run(of_wheelhouse(wheelhouse, **more))
    assert outcome.code == 0
    written = [outcome.stdout, *outcome.lines, node.spark_env.read_text()]
    written += [file.read_text() for file in (node.home / "dbx_aml").iterdir()]
    assert any("AZURE_CLIENT_SECRET" in text for text in written), "the reference is kept"
    assert not any(secret in text for text in written)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"DBX_AML_ON_FAILURE": "maybe"}, "DBX_AML_ON_FAILURE must be 'continue' or 'stop'"),
        (
            {"DBX_AML_WHEELHOUSE_PATH": "dbfs:/x"},
            "DBX_AML_WHEELHOUSE_PATH must be an absolute path",
        ),
        ({"DBX_AML_MODE": "dual", "DBX_AML_REGISTRY": "mine"}, "registry must be one of"),
        ({"DBX_AML_MODE": "both"}, "mode must be one of ['databricks', 'aml', 'dual']"),
        ({"DBX_AML_SUBSCRIPTION_ID": "mine"}, "Azure ML subscription_id must be valid"),
    ],
)
def test_settings_that_can_never_work_end_with_two_and_one_line(
    node: Node, wheelhouse: Path, variables: dict[str, str], reason: str
) -> None:
    outcome = node.run({**of_wheelhouse(wheelhouse), **variables})
    assert (outcome.code, outcome.stdout, len(outcome.lines)) == (2, "", 1)
    assert outcome.last.startswith(reason)
    assert node.is_as_before()


def with_version(node: Node, name: str, version: str) -> None:
    """Let the runtime have brought another version."""
    place = site_packages(node.home / "python")
    (old,) = place.glob(f"{name.replace('-', '_')}-*.dist-info")
    metadata = (old / "METADATA").read_text()
    (old / "METADATA").unlink()
    (old / "METADATA").write_text(re.sub(r"Version: \d.*", f"Version: {version}", metadata))
    old.rename(place / f"{name.replace('-', '_')}-{version}.dist-info")
    node.before, node.files_before = node.versions(), node.files()


def test_a_runtime_newer_than_all_known_gets_a_known_plugin_and_the_marker_says_so(
    fresh: Fresh, index: Index
) -> None:
    node = fresh(version="25.3.x-scala2.13")
    for name, version in (
        ("mlflow-skinny", "3.18.0"), ("azure-storage-blob", "13.0.0b1"), ("pandas", "3.0.1"),
        ("azure-core", "2.1.0"),
    ):  # fmt: skip
        with_version(node, name, version)
    outcome = node.run(of_index(index))
    assert outcome.code == 0, outcome.lines
    assert node.added == ADDED
    (message,) = node.marker.messages
    assert message.startswith("runtime 25.3.x-scala2.13 is newer than the known ones, up to 19")
    assert {(one.package, one.version) for one in node.marker.kept_packages} == {
        ("mlflow-skinny", "3.18.0"), ("azure-storage-blob", "13.0.0b1"), ("pandas", "3.0.1"),
        ("azure-core", "2.1.0"),
    }  # fmt: skip


def test_a_runtime_that_is_too_old_is_refused(fresh: Fresh, wheelhouse: Path) -> None:
    node = fresh(version="15.4")
    with_version(node, "mlflow-skinny", "2.11.4")
    outcome = node.run(of_wheelhouse(wheelhouse))
    reason = f"mlflow-skinny must be <4,>=2.19 for dbx-aml {VERSION}: got 2.11.4"
    assert_failed_and_unchanged(node, outcome, reason)


def test_a_wheelhouse_with_the_plugin_of_2021_is_refused(node: Node, wheelhouse: Path) -> None:
    (wheelhouse / f"azureml_mlflow-{PLUGIN}-py3-none-any.whl").unlink()
    write_wheel(wheelhouse, "azureml-mlflow", "1.22.0")
    write_requirements(wheelhouse, list(wheelhouse.glob("*.whl")))
    outcome = node.run(of_wheelhouse(wheelhouse))
    assert_failed_and_unchanged(node, outcome, f"azureml-mlflow must be <2,>={PLUGIN}")
    assert "install" not in node.marker.steps


def test_a_plugin_of_2021_that_is_there_already_is_refused(node: Node, wheelhouse: Path) -> None:
    info = site_packages(node.home / "python") / "azureml_mlflow-1.22.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: azureml-mlflow\nVersion: 1.22.0\n")
    (info / "RECORD").write_text("azureml_mlflow-1.22.0.dist-info/RECORD,,\n")
    node.before, node.files_before = node.versions(), node.files()
    outcome = node.run(of_wheelhouse(wheelhouse))
    assert_failed_and_unchanged(node, outcome, f"azureml-mlflow must be <2,>={PLUGIN}")


def test_an_error_of_our_own_does_not_keep_the_cluster_from_starting(
    node: Node, wheelhouse: Path, tmp_path: Path
) -> None:
    """The wheel's own code fails before it can say why."""
    file = write_wheel(
        wheelhouse, "dbx-aml", VERSION, (), {"dbx_aml/__init__.py": "raise ValueError('ours')"}
    )
    write_requirements(wheelhouse, [file])
    outcome = node.run(of_wheelhouse(wheelhouse))
    assert_failed_and_unchanged(node, outcome, "dbx-aml must end by itself: got status 1")
    assert "ValueError: ours" in outcome.lines


def test_what_pip_says_is_repeated_without_credentials(node: Node) -> None:
    python = node.home / "python" / "bin" / "python"
    python.unlink()
    python.write_text(
        "#!/bin/sh\necho 'ERROR: no https://ana:s3cret@pypi.contoso.com/simple'; exit 1\n"
    )
    python.chmod(0o755)
    outcome = node.run(LINK)
    assert "got 'no https://pypi.contoso.com/simple'" in (node.marker.reason or "")
    assert "s3cret" not in "\n".join(outcome.lines)
    said = "WARNING: x\nERROR: one https://ana:s3cret@host\n    two\nWARNING: y\n"
    assert pip_errors(said) == "one https://***@host two"
    assert pip_errors("\nCould not open x\n") == "Could not open x"
    assert pip_errors("") == "no output"


def test_the_marker_of_a_node_without_python_is_json_all_the_same(node: Node) -> None:
    shutil.rmtree(node.home / "python" / "bin")
    outcome = node.run({**LINK, "DBX_AML_ON_FAILURE": "stop"})
    assert outcome.code == 1
    assert json.loads(node.marker_file.read_text())["version"] == VERSION
    assert "No such file or directory" in (node.marker.reason or "")
