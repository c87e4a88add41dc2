"""The init script runs in temporary nodes with their own Python and pip."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest

import dbx_aml
from dbx_aml import Link
from dbx_aml.cluster.init_script import read_init_script, render
from dbx_aml.cluster.node.packages import pip_errors
from dbx_aml.cluster.runtimes import known_runtimes
from dbx_aml.cluster.wheelhouse import index_requirements
from tests.support.node.index import serve
from tests.support.node.node import LINK, Node, ScriptResult
from tests.support.node.runtime import (
    PLUGIN,
    site_packages,
    stand_in_runtime,
    write_additions,
    write_plugin,
)
from tests.support.node.wheel import (
    list_wheels,
    own_wheel,
    sha256,
    wheelhouse_variables,
    write_wheel,
)

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
URI = (
    "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/"
    "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42/resourceGroups/rg-ml/providers/"
    "Microsoft.MachineLearningServices/workspaces/mlw-team"
)
WHEELHOUSE = {"wheelhouse_path": "/no/such", "wheelhouse_sha256": "0" * 64}
SPARK_ENV = "export SPARK_LOCAL_DIRS=/local_disk0\n"
# A new network has only loopback, and that switched off (SIOCSIFFLAGS: up, running).
_ENABLE_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))
os.execvp(sys.argv[1], sys.argv[1:])
"""
NO_NETWORK = ("unshare", "-n", sys.executable, "-c", _ENABLE_LOOPBACK)
TWO_ATTEMPTS = {"TEST_DBX_AML_ATTEMPTS": "2"}
MakeNode = Callable[..., Node]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in_runtime(tmp_path_factory.mktemp("runtime") / "python")


@pytest.fixture(scope="module")
def shared_wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheelhouse that no test changes."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    own_wheel(folder)
    write_plugin(folder)
    write_additions(folder)
    list_wheels(folder)
    return folder


@pytest.fixture(scope="module")
def prepared_original(
    tmp_path_factory: pytest.TempPathFactory, runtime: Path, shared_wheelhouse: Path
) -> Node:
    node = Node(tmp_path_factory.mktemp("prepared") / "node", runtime)
    result = node.run(with_wheelhouse(shared_wheelhouse))
    assert result.exit_code == 0, result.lines
    return node


@pytest.fixture
def prepared_node(prepared_original: Node, tmp_path: Path) -> Node:
    """A node on which the script has already run with the shared wheelhouse."""
    return prepared_original.copy(tmp_path / "node")


@pytest.fixture
def make_node(tmp_path: Path, runtime: Path) -> MakeNode:
    def make_new_node(name: str = "node", **arguments: str) -> Node:
        return Node(tmp_path / name, runtime, **arguments)

    return make_new_node


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node()


@pytest.fixture
def wheelhouse(tmp_path: Path, shared_wheelhouse: Path) -> Path:
    return Path(shutil.copytree(shared_wheelhouse, tmp_path / "wheelhouse"))


def with_wheelhouse(folder: Path, **variables: str) -> dict[str, str]:
    return {**LINK, **wheelhouse_variables(folder), **variables}


def make_link(**values: str) -> Link:
    link = {name.removeprefix("DBX_AML_").lower(): value for name, value in LINK.items()}
    return Link.from_file(None, **link | values)


def assert_failed_and_unchanged(node: Node, result: ScriptResult, reason: str) -> None:
    """Assert that the cluster starts, the marker has the reason, and the node is unchanged."""
    assert result.exit_code == 0, result.lines
    assert result.stdout == ""
    assert result.last_line == f"the cluster starts without dbx-aml: {node.marker.reason}"
    assert reason in (node.marker.reason or "")
    assert node.marker.status == "failed"
    assert dict(node.marker.installed) == {}
    assert node.has_only_runtime_packages()
    assert node.spark_env.read_text() == SPARK_ENV


def exported_variables(node: Node) -> dict[str, str]:
    """Return the variables of a process that starts after `spark-env.sh`, in plain bash."""
    process = subprocess.run(
        ["env", "-i", "bash", "-c", '. "$1" && env -0', "-", str(node.spark_env)],
        capture_output=True,
        text=True,
        check=True,
    )
    values = dict(line.split("=", 1) for line in process.stdout.split("\0") if line)
    assert values["SPARK_LOCAL_DIRS"] == "/local_disk0"
    return {name: values[name] for name in values if name.startswith(("DBX", "MLFLOW", "AZURE"))}


# The text of the script.


def test_the_script_is_small_and_its_copy_is_identical() -> None:
    text = read_init_script()
    assert (ROOT / "init_scripts" / "dbx_aml_init.sh").read_text("utf-8") == text
    assert len(text.encode()) < 17 * 1024
    assert len(render(make_link(), **WHEELHOUSE).encode()) < 64 * 1024
    lines = text.splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[-1] == 'main "$@"'
    assert "\nset -euo pipefail\n" in text
    assert not re.search(r"^[^#]*\b(eval|set -x)\b", text, re.MULTILINE)
    for heading in ("# Reads:", "# Writes:", "# Exit:"):
        assert heading in text


def test_shellcheck_finds_nothing_in_a_rendered_script(tmp_path: Path) -> None:
    file = tmp_path / "rendered.sh"
    link = make_link(experiment="it's größer")
    text = render(link, wheelhouse_path="/Volumes/a b", wheelhouse_sha256="0" * 64)
    file.write_text(text, "utf-8")
    command = [str(Path(sys.executable).with_name("shellcheck")), "--severity=style", str(file)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (0, "")


# Success.


def test_a_wheelhouse_prepares_a_node_without_a_network_and_without_writing_a_secret(
    node: Node, wheelhouse: Path
) -> None:
    secret = "Xyz8Q~0123456789012345678901234567890a"
    secret_variables = {
        "AZURE_CLIENT_SECRET": secret,
        "DBX_AML_CLIENT_SECRET": "env:AZURE_CLIENT_SECRET",
    }
    result = node.run(with_wheelhouse(wheelhouse, **secret_variables), NO_NETWORK)
    assert (result.exit_code, result.stdout) == (0, ""), result.lines
    assert node.added_packages == ADDED
    marker = node.marker
    assert (marker.status, marker.reason, marker.version) == ("ok", None, VERSION)
    assert (marker.runtime, marker.is_driver, marker.messages) == ("18.0", True, ())
    assert marker.packages_from == f"wheelhouse {wheelhouse}"
    assert dict(marker.installed) == INSTALLED
    assert [*marker.steps] == ["fetch", "install", "check", "configure"]
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
    assert exported_variables(node) == variables
    assert Link.from_file(config) == make_link(client_secret="env:AZURE_CLIENT_SECRET")
    texts = [*result.lines, node.spark_env.read_text()]
    texts += [file.read_text() for file in (node.home / "dbx_aml").iterdir()]
    assert any("AZURE_CLIENT_SECRET" in text for text in texts), "the reference is written"
    assert not any(secret in text for text in texts)


def test_a_second_run_changes_nothing(prepared_node: Node, shared_wheelhouse: Path) -> None:
    def modification_times() -> dict[Path, int]:
        files = (file for file in prepared_node.home.rglob("*") if file.is_file())
        return {file: file.stat().st_mtime_ns for file in files}

    times = modification_times()
    result = prepared_node.run(with_wheelhouse(shared_wheelhouse))
    assert (result.exit_code, len(result.lines)) == (0, 1)
    assert result.last_line.startswith("nothing to do")
    assert modification_times() == times


@pytest.mark.slow
def test_the_fingerprint_depends_on_settings_and_on_no_secret(
    prepared_node: Node, shared_wheelhouse: Path
) -> None:
    """Every user of the node reads it, and could test guesses of a secret against it."""
    variables = with_wheelhouse(shared_wheelhouse, DBX_AML_SECRET_ML_KEY="hunter2")
    assert prepared_node.run(variables).last_line.startswith("nothing to do")
    variables["DBX_AML_RETRY_TIMEOUT_S"] = "7"
    assert prepared_node.run(variables).last_line.startswith("done in")


def test_other_settings_replace_the_block_of_variables(
    prepared_node: Node, shared_wheelhouse: Path
) -> None:
    node = prepared_node
    node.spark_env.write_text(node.spark_env.read_text() + "export AFTER=1\n")
    settings = {"DBX_AML_MODE": "dual", "DBX_AML_REGISTRY": "databricks"}
    assert node.run(with_wheelhouse(shared_wheelhouse, **settings)).exit_code == 0
    assert node.added_packages == ADDED
    text = node.spark_env.read_text()
    assert text.count("# >>> dbx-aml >>>") == text.count("# <<< dbx-aml <<<") == 1
    assert "export AFTER=1\n" in text
    values = exported_variables(node)
    assert (values["MLFLOW_TRACKING_URI"], values["MLFLOW_REGISTRY_URI"]) == ("databricks",) * 2


@pytest.mark.slow
def test_a_removed_block_and_a_removed_package_are_restored(
    prepared_node: Node, shared_wheelhouse: Path
) -> None:
    shutil.rmtree(site_packages(prepared_node.home / "python") / "msrest-0.7.1.dist-info")
    prepared_node.spark_env.write_text(SPARK_ENV)
    result = prepared_node.run(with_wheelhouse(shared_wheelhouse))
    assert result.last_line.startswith("done in")
    assert prepared_node.added_packages == ADDED
    assert exported_variables(prepared_node)["MLFLOW_TRACKING_URI"] == URI


@pytest.mark.slow
def test_two_nodes_can_read_one_wheelhouse_at_the_same_time(
    make_node: MakeNode, shared_wheelhouse: Path
) -> None:
    nodes = [make_node("driver"), make_node("worker")]
    times = {file: file.stat().st_mtime_ns for file in shared_wheelhouse.iterdir()}
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda node: node.run(with_wheelhouse(shared_wheelhouse)), nodes))
    assert [result.exit_code for result in results] == [0, 0]
    assert [node.added_packages for node in nodes] == [ADDED, ADDED]
    assert {file: file.stat().st_mtime_ns for file in shared_wheelhouse.iterdir()} == times


@pytest.mark.slow
def test_a_link_without_a_region_sets_no_tracking_uri_and_the_marker_says_so(
    node: Node, shared_wheelhouse: Path
) -> None:
    result = node.run(with_wheelhouse(shared_wheelhouse, DBX_AML_REGION=""))
    assert result.exit_code == 0, result.lines
    (message,) = node.marker.messages
    assert "the link has no region" in message
    assert "MLFLOW_TRACKING_URI" not in exported_variables(node)


# Settings.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", ".azureml/config.json", "../config.json"])
def test_a_link_that_changes_in_the_folder_of_dbx_aml_config_reaches_the_node(
    node: Node, tmp_path: Path, shared_wheelhouse: Path, name: str
) -> None:
    folder = tmp_path / "links" / "team"
    (folder / ".azureml").mkdir(parents=True)
    variables = {**wheelhouse_variables(shared_wheelhouse), "DBX_AML_CONFIG": str(folder)}
    for mode in ("aml", "databricks"):
        link = make_link() if mode == "aml" else Link(mode="databricks")
        link.save((folder / name).resolve())
        result = node.run(variables)
        assert result.exit_code == 0, result.lines
        expected = URI if mode == "aml" else "databricks"
        assert exported_variables(node)["MLFLOW_TRACKING_URI"] == expected


@pytest.mark.slow
def test_a_change_of_the_nodes_own_config_counts(
    prepared_node: Node, shared_wheelhouse: Path
) -> None:
    variables = with_wheelhouse(shared_wheelhouse)
    assert "nothing to do" in prepared_node.run(variables).last_line
    make_link().save(prepared_node.home / "config.json")
    assert "done in" in prepared_node.run(variables).last_line


@pytest.mark.slow
def test_a_strict_umask_and_proxies_of_the_cluster_do_not_matter(
    node: Node, shared_wheelhouse: Path
) -> None:
    """Hardened images set the umask; proxy scripts write the variables in small letters."""
    proxy = "http://127.0.0.1:9"
    proxies = {"HTTP_PROXY": proxy, "https_proxy": proxy, "no_proxy": ".corp.contoso.com"}
    strict = ("bash", "-c", 'umask 077; exec "$@"', "-")
    result = node.run(with_wheelhouse(shared_wheelhouse, **proxies), prefix=strict)
    assert (result.exit_code, node.marker.status) == (0, "ok"), result.lines
    packages = site_packages(node.home / "python")
    added = [file for name in ("dbx_aml*", "azureml*") for file in packages.glob(name)]
    added += [file for folder in added for file in folder.rglob("*")]
    added += [*(node.home / "dbx_aml").rglob("*"), node.home / "dbx_aml", node.spark_env]
    assert added
    assert [file for file in added if not file.stat().st_mode & 0o004] == []


@pytest.mark.slow
def test_a_rendered_script_needs_no_variables_and_variables_override_it(
    node: Node, wheelhouse: Path
) -> None:
    """In runtime 19 with standard access mode, an init script sees no variables of the cluster."""
    result = node.run({})
    assert result.exit_code == 2
    assert "got no variable DBX_AML_*" in result.last_line
    assert "dbx-aml cluster init-script" in result.last_line
    assert node.has_only_runtime_packages()
    node.script.write_text(render(make_link(), **WHEELHOUSE), encoding="utf-8")
    variables = {**wheelhouse_variables(wheelhouse), "DBX_AML_RETRY_TIMEOUT_S": "7"}
    assert node.run(variables).exit_code == 0
    assert node.added_packages == ADDED
    assert exported_variables(node)["DBX_AML_RETRY_TIMEOUT_S"] == "7"
    assert exported_variables(node)["MLFLOW_TRACKING_URI"] == URI


@pytest.mark.slow
def test_a_list_of_hashes_with_crlf_prepares_a_node(node: Node, wheelhouse: Path) -> None:
    hashes = wheelhouse / "requirements.txt"
    hashes.write_bytes(hashes.read_bytes().replace(b"\n", b"\r\n"))
    result = node.run(with_wheelhouse(wheelhouse))
    assert result.exit_code == 0, result.lines
    assert node.added_packages == ADDED


def test_settings_keep_spaces_quotes_and_other_alphabets(
    tmp_path: Path, node: Node, wheelhouse: Path
) -> None:
    name = 'o\'brien "größe" $(touch injected) `touch injected` 数据 \\ wheelhouse'
    wheelhouse = wheelhouse.rename(tmp_path / name)
    experiment = '/Users/ana@contoso.com/it\'s "größer" $(touch injected) 数据'
    link = Link.from_file(
        None,
        mode="dual",
        aml_workspace=make_link().aml_workspace,
        databricks_tracking_uri="sqlite:////tmp/a b's $HOME.db",
        experiment=experiment,
    )
    hashes = sha256(wheelhouse / "requirements.txt")
    script = render(link, wheelhouse_path=str(wheelhouse), wheelhouse_sha256=hashes)
    node.script.write_text(script, encoding="utf-8")
    result = node.run({})
    assert result.exit_code == 0, result.lines
    assert Link.from_file(node.home / "dbx_aml" / "config.json").experiment == experiment
    assert exported_variables(node)["MLFLOW_TRACKING_URI"] == "sqlite:////tmp/a b's $HOME.db"
    assert node.marker.packages_from == f"wheelhouse {wheelhouse}"
    assert not list(tmp_path.rglob("injected"))


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"DBX_AML_ON_FAILURE": "maybe"}, "DBX_AML_ON_FAILURE must be 'continue' or 'stop'"),
        (
            {"DBX_AML_WHEELHOUSE_PATH": "dbfs:/x"},
            "DBX_AML_WHEELHOUSE_PATH must be the absolute path of a wheelhouse: got 'dbfs:/x'",
        ),
        (
            {"DBX_AML_WHEELHOUSE_PATH": ""},
            "DBX_AML_WHEELHOUSE_PATH must be the absolute path of a wheelhouse: got ''; fill one "
            "with 'dbx-aml cluster wheelhouse'",
        ),
        (
            {"DBX_AML_WHEELHOUSE_SHA256": ""},
            "DBX_AML_WHEELHOUSE_SHA256 must be the SHA-256 of the wheelhouse's requirements.txt",
        ),
        ({"DBX_AML_WHEELHOUSE_SHA256": "0" * 63}, "DBX_AML_WHEELHOUSE_SHA256 must be the SHA-256"),
        ({"DBX_AML_INIT_TIMEOUT_S": "5m"}, "DBX_AML_INIT_TIMEOUT_S must be a whole number of"),
        ({"DBX_AML_MODE": "dual", "DBX_AML_REGISTRY": "mine"}, "registry must be one of"),
        ({"DBX_AML_MODE": "both"}, "mode must be one of ['databricks', 'aml', 'dual']"),
        ({"DBX_AML_SUBSCRIPTION_ID": "mine"}, "Azure ML subscription_id must be valid"),
    ],
)
def test_settings_that_can_never_work_exit_with_2_and_one_line(
    node: Node, shared_wheelhouse: Path, variables: dict[str, str], reason: str
) -> None:
    result = node.run({**with_wheelhouse(shared_wheelhouse), **variables})
    assert (result.exit_code, result.stdout, len(result.lines)) == (2, "", 1)
    assert result.last_line.startswith(reason)
    assert node.has_only_runtime_packages()


@pytest.mark.parametrize("status", [2, 75, 78])
@pytest.mark.parametrize("version", ["3.10", "3.12"])
def test_a_python_that_ends_without_a_reason_is_a_failure_and_no_wrong_setting(
    node: Node, shared_wheelhouse: Path, version: str, status: int
) -> None:
    """Python 3.10 has no option -P and ends with 2."""
    python = node.home / "python" / "bin" / "python"
    python.unlink()
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo {version} || exit {status}\n')
    python.chmod(0o755)
    result = node.run(with_wheelhouse(shared_wheelhouse))
    assert (result.exit_code, node.marker.status) == (0, "failed")
    reason = {
        "3.10": f"the cluster's Python must be 3.11 or newer: {python} is 3.10",
        "3.12": f"dbx-aml must end by itself: got status {status}",
    }[version]
    assert str(node.marker.reason).startswith(reason)
    assert reason in result.last_line


def test_a_link_that_is_not_mounted_is_tried_again(
    node: Node, tmp_path: Path, shared_wheelhouse: Path
) -> None:
    variables = {"DBX_AML_CONFIG": str(tmp_path / "config.json"), **TWO_ATTEMPTS}
    result = node.run(with_wheelhouse(shared_wheelhouse, **variables))
    assert_failed_and_unchanged(node, result, "DBX_AML_CONFIG must be a file or folder")
    assert sum("attempt" in line for line in result.lines) == 1


@pytest.mark.parametrize("on_failure", ["continue", "stop"])
def test_on_failure_decides_whether_the_cluster_starts(
    node: Node, tmp_path: Path, on_failure: str
) -> None:
    missing = {"DBX_AML_WHEELHOUSE_PATH": str(tmp_path), "DBX_AML_WHEELHOUSE_SHA256": "0" * 64}
    result = node.run({**LINK, **missing, "DBX_AML_ON_FAILURE": on_failure, **TWO_ATTEMPTS})
    reason = "wheelhouse must have a readable requirements.txt"
    assert sum("attempt 1 of 2 failed, next in 0 s" in line for line in result.lines) == 1
    if on_failure == "continue":
        assert_failed_and_unchanged(node, result, reason)
    else:
        assert result.exit_code == 1
        assert result.last_line == node.marker.reason
        assert result.last_line.startswith(reason)
        assert node.has_only_runtime_packages()


# The wheelhouse.


def test_a_wheel_with_another_hash_is_refused(node: Node, wheelhouse: Path) -> None:
    write_wheel(wheelhouse, "jsonpickle", "4.1.4", (), {"jsonpickle.py": "other = 1"})
    result = node.run(with_wheelhouse(wheelhouse))
    assert_failed_and_unchanged(node, result, "DO NOT MATCH THE HASHES")


def test_wheels_that_were_changed_with_their_list_are_not_run(
    node: Node, wheelhouse: Path, tmp_path: Path
) -> None:
    variables = with_wheelhouse(wheelhouse)
    executed = f"open({str(tmp_path / 'executed')!r}, 'w')"
    write_wheel(wheelhouse, "dbx-aml", VERSION, (), {"dbx_aml/__init__.py": executed})
    write_plugin(wheelhouse, broken=executed)
    list_wheels(wheelhouse)
    result = node.run(variables)
    assert_failed_and_unchanged(node, result, "must have the SHA-256 of the script's settings")
    assert "then detach the cluster and attach it again" in result.last_line
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "line", ["--extra-index-url https://x/simple", "jsonpickle", "b @ file:///b.whl", "# b==1", ""]
)
def test_a_list_takes_only_hashes(node: Node, wheelhouse: Path, line: str) -> None:
    requirements = wheelhouse / "requirements.txt"
    requirements.write_text(f"{line}\n{requirements.read_text()}")
    result = node.run(with_wheelhouse(wheelhouse))
    assert_failed_and_unchanged(node, result, "line 1 is none; fill the wheelhouse again")


def test_settings_of_pip_do_not_reach_the_node(node: Node, wheelhouse: Path) -> None:
    (wheelhouse / "msrest-0.7.1-py3-none-any.whl").unlink()
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.setblocking(False)
        url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        (node.root / ".config" / "pip").mkdir(parents=True)
        (node.root / ".config" / "pip" / "pip.conf").write_text(f"[global]\nindex-url = {url}\n")
        variables = {"PIP_INDEX_URL": url, "PIP_EXTRA_INDEX_URL": url, "PIP_FIND_LINKS": url}
        result = node.run(with_wheelhouse(wheelhouse, **variables))
        with pytest.raises(BlockingIOError):
            index.accept()
    assert_failed_and_unchanged(node, result, "No matching distribution found for msrest==0.7.1")


def test_a_wheel_of_dbx_aml_with_another_hash_is_not_run(node: Node, wheelhouse: Path) -> None:
    (file,) = wheelhouse.glob("dbx_aml-*.whl")
    with file.open("ab") as stream:
        stream.write(b"?")
    result = node.run(with_wheelhouse(wheelhouse))
    assert_failed_and_unchanged(node, result, "must hold dbx-aml's wheel with the hash")


@pytest.mark.parametrize(
    ("missing_file", "reason"),
    [
        ("requirements.txt", "wheelhouse must have a readable requirements.txt"),
        ("msrest-0.7.1-py3-none-any.whl", "No matching distribution found for msrest==0.7.1"),
    ],
)
def test_a_missing_file_of_the_wheelhouse_is_named(
    node: Node, wheelhouse: Path, missing_file: str, reason: str
) -> None:
    variables = with_wheelhouse(wheelhouse)
    (wheelhouse / missing_file).unlink()
    assert_failed_and_unchanged(node, node.run(variables), reason)


# The runtime.


def test_a_package_that_the_image_has_already_is_refused(
    node: Node, shared_wheelhouse: Path
) -> None:
    info = site_packages(node.home / "python") / "azureml_mlflow-1.22.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: azureml-mlflow\nVersion: 1.22.0\n")
    (info / "RECORD").write_text("azureml_mlflow-1.22.0.dist-info/RECORD,,\n")
    node.record_runtime()
    result = node.run(with_wheelhouse(shared_wheelhouse))
    reason = "packages to add must not be on the node yet: got ['azureml-mlflow 1.22.0']"
    assert_failed_and_unchanged(node, result, reason)


# Roll-back.


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"# f\xfcr alle\nexport A=1\n", b"export A=1", b"", b"\r\n"])
def test_spark_env_has_its_bytes_before_the_block_and_exactly_them_after_a_failure(
    node: Node, wheelhouse: Path, content: bytes
) -> None:
    node.spark_env.write_bytes(content)
    variables = with_wheelhouse(wheelhouse)
    assert node.run(variables).exit_code == 0
    assert node.spark_env.read_bytes().startswith(content)
    assert node.spark_env.read_bytes().endswith(b"# <<< dbx-aml <<<\n")
    (wheelhouse / "requirements.txt").unlink()
    failed = node.run({**variables, "DBX_AML_RETRY_TIMEOUT_S": "7"})
    assert failed.exit_code == 0
    assert node.spark_env.read_bytes() == content
    assert node.has_only_runtime_packages()
    assert not (node.home / "dbx_aml" / "config.json").exists()


def test_a_byte_order_mark_in_the_list_is_no_part_of_it(node: Node, wheelhouse: Path) -> None:
    """Editors of Windows write it."""
    requirements = wheelhouse / "requirements.txt"
    lines = sorted(requirements.read_text().splitlines(), key=lambda line: "dbx-aml" in line)
    requirements.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    assert node.run(with_wheelhouse(wheelhouse)).last_line.startswith("done in")
    assert node.added_packages == ADDED


# Time.


@pytest.fixture
def index_asked() -> Event:
    """Set once the dripping index has got a request."""
    return Event()


@pytest.fixture
def dripping_index(index_asked: Event) -> Iterator[str]:
    """A package index that sends a byte each tenth of a second."""

    class Drip(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index_asked.set()
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b" ")
                    time.sleep(0.1)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Drip) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple/"
        server.shutdown()


def hang_in_index(node: Node, index: str) -> dict[str, str]:
    wheel = own_wheel(node.root / "own")
    list_text = index_requirements(known_runtimes()["17.3"], wheel)
    node.script.write_text(render(make_link(), requirements=list_text))
    return {"PIP_INDEX_URL": index}


def hang_in_volume(node: Node, index: str) -> dict[str, str]:
    (node.root / "house").mkdir()
    os.mkfifo(node.root / "house" / "requirements.txt")
    variables = {"DBX_AML_WHEELHOUSE_SHA256": "0" * 64}
    return {**LINK, **variables, "DBX_AML_WHEELHOUSE_PATH": str(node.root / "house")}


def hang_in_config(node: Node, index: str) -> dict[str, str]:
    os.mkfifo(node.root / "config.json")
    return {**hang_in_volume(node, index), "DBX_AML_CONFIG": str(node.root / "config.json")}


@pytest.mark.slow
@pytest.mark.parametrize("hang", [hang_in_index, hang_in_volume, hang_in_config])
def test_the_script_ends_within_its_time_whatever_hangs(
    node: Node, dripping_index: str, hang: Callable[[Node, str], dict[str, str]]
) -> None:
    variables = {**hang(node, dripping_index), "DBX_AML_INIT_TIMEOUT_S": "3"}
    started = time.monotonic()
    result = node.run(variables)
    assert time.monotonic() - started < 30
    assert_failed_and_unchanged(node, result, "the init script must end within 3 s")


@pytest.mark.slow
def test_a_signal_ends_the_script_with_a_clean_node(
    node: Node, dripping_index: str, index_asked: Event
) -> None:
    script = subprocess.Popen(
        node.command(), env=node.environment(hang_in_index(node, dripping_index)), stderr=-1
    )
    assert index_asked.wait(60)
    script.terminate()
    script.communicate(timeout=60)
    assert node.marker.status == "failed"
    assert node.has_only_runtime_packages()


@pytest.mark.slow
def test_without_a_wheelhouse_the_index_gives_the_wheels_of_the_list(
    node: Node, shared_wheelhouse: Path
) -> None:
    list_text = (shared_wheelhouse / "requirements.txt").read_text()
    node.script.write_text(render(make_link(), requirements=list_text, init_timeout_s=60))
    with serve(shared_wheelhouse) as index:
        result = node.run({"PIP_INDEX_URL": index.url})
    assert result.last_line.startswith("done in"), result.lines
    assert node.added_packages == ADDED
    assert node.marker.packages_from == "package index"


@pytest.mark.slow
def test_a_plugin_that_does_not_work_is_rolled_back_with_all_earlier_packages(
    prepared_node: Node, wheelhouse: Path
) -> None:
    broken = "raise ValueError('no such function in the blob client')"
    write_plugin(wheelhouse, "1.62.0.post7", broken=broken)
    (wheelhouse / f"azureml_mlflow-{PLUGIN}-py3-none-any.whl").unlink()
    list_wheels(wheelhouse)
    result = prepared_node.run(with_wheelhouse(wheelhouse))
    assert_failed_and_unchanged(prepared_node, result, "no such function in the blob client")
    assert "removing [" in "\n".join(result.lines)


@pytest.mark.slow
def test_a_killed_run_is_completed_by_the_next_run(node: Node, wheelhouse: Path) -> None:
    files = {f"msrest/part{number}.py": "x = 1\n" for number in range(1000)}
    write_wheel(wheelhouse, "msrest", "0.7.1", ("azure-core>=1.24.0",), files)
    list_wheels(wheelhouse)
    environment = node.environment(with_wheelhouse(wheelhouse))
    script = subprocess.Popen(
        node.command(), env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    folder = site_packages(node.home / "python") / "msrest"
    deadline = time.monotonic() + 60
    while not folder.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    for process in [*psutil.Process(script.pid).children(recursive=True), script]:
        process.kill()
    script.wait()
    assert node.marker.status == "failed"
    assert str(node.marker.reason).startswith("the init script must end: it was killed, or is")
    assert dict(node.marker.installed) == INSTALLED
    assert len(list(folder.glob("*.py"))) < len(files)
    # pip was killed after it had written the metadata, but before the list of files.
    info = folder.parent / "jsonpickle-4.1.4.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jsonpickle\nVersion: 4.1.4\n")
    (info / "RECORD").unlink(missing_ok=True)
    result = node.run(with_wheelhouse(wheelhouse))
    assert result.last_line.startswith("done in"), result.lines
    assert node.added_packages == ADDED
    assert len(list(folder.glob("*.py"))) == len(files)
    assert (info / "RECORD").exists()


# The machine.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_leaves_the_runtime_unchanged(
    small_disk: Path, runtime: Path, shared_wheelhouse: Path
) -> None:
    copy = shutil.copytree(runtime, small_disk / "python", symlinks=True)
    node = Node(small_disk / "node", copy)
    free_bytes = shutil.disk_usage(small_disk).free - 100 * 1024
    (small_disk / "filler").write_bytes(b"0" * free_bytes)
    variables = {**with_wheelhouse(shared_wheelhouse), "PYTHONDONTWRITEBYTECODE": "1"}
    assert_failed_and_unchanged(node, node.run(variables), "No space left on device")
    (small_disk / "filler").unlink()
    assert node.run(with_wheelhouse(shared_wheelhouse)).last_line.startswith("done in")
    assert node.added_packages == ADDED


def test_a_full_temporary_folder_does_not_stop_the_cluster(
    node: Node, small_disk: Path, shared_wheelhouse: Path
) -> None:
    (small_disk / "filler").write_bytes(b"0" * shutil.disk_usage(small_disk).free)
    result = node.run({**with_wheelhouse(shared_wheelhouse), "TMPDIR": str(small_disk)})
    assert_failed_and_unchanged(node, result, "have room for it")
    result = node.run({**with_wheelhouse(shared_wheelhouse), "TMPDIR": "/no/such"})
    assert_failed_and_unchanged(node, result, "a temporary folder must be writable")


def test_read_only_packages_fail_with_their_folder(node: Node, shared_wheelhouse: Path) -> None:
    python = node.home / "python"
    bind = f"mount --bind '{python}' '{python}' && mount -o remount,ro,bind '{python}'"
    prefix = ("unshare", "-m", "sh", "-c", f'{bind} && exec "$@"', "-")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    result = node.run(with_wheelhouse(shared_wheelhouse), prefix)
    assert_failed_and_unchanged(node, result, f"{site_packages(python)} must be writable")


def test_an_error_of_dbx_aml_does_not_stop_the_cluster(node: Node, wheelhouse: Path) -> None:
    files = {"dbx_aml/__init__.py": "raise ValueError('broken')"}
    write_wheel(wheelhouse, "dbx-aml", VERSION, (), files)
    list_wheels(wheelhouse)
    result = node.run(with_wheelhouse(wheelhouse))
    assert_failed_and_unchanged(node, result, "dbx-aml must end by itself: got status 1")
    assert "ValueError: broken" in result.lines


def test_pip_errors_are_repeated_without_credentials() -> None:
    output = "WARNING: x\nERROR: first https://ana:s3cret@host\n    second\nWARNING: y\n"
    assert pip_errors(output) == "first https://***@host second"
    assert pip_errors("\nCould not open x\n") == "Could not open x"
    assert pip_errors("") == "no output"


def test_the_marker_of_a_node_without_python_is_valid_json(
    node: Node, shared_wheelhouse: Path
) -> None:
    shutil.rmtree(node.home / "python" / "bin")
    result = node.run(with_wheelhouse(shared_wheelhouse, DBX_AML_ON_FAILURE="stop"))
    assert result.exit_code == 1
    assert json.loads(node.marker_path.read_text())["status"] == "failed"
    assert node.marker.reason == "dbx-aml must end by itself: got status 127; see the lines above"
