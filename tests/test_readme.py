"""Every code block of README and docs runs in the order of its page, against the stand-ins."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dbx_aml import AmlWorkspace, Link
from dbx_aml.local.spark import SHORT_JOB_JAVA_OPTIONS
from tests.support.azureml import AzureMl
from tests.support.child_process import clean_environment, start_child
from tests.support.databricks import USER, Databricks
from tests.support.databricks.boot import leaves_marker
from tests.support.isolation import isolate_from_machine
from tests.support.node.index import serve
from tests.support.node.runtime import write_additions, write_plugin

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("make", "pip", "databricks", "dbx-aml", "python-blocks", "shared-java")
CLIENT = ROOT / "tests" / "support" / "program_client.py"
WORKSPACE_FOLDER = ".dbx_aml/files/Workspace/Users/ana@contoso.com/dbx-aml/notebooks"
# Proxies of this machine, which the fixtures replace.
PROXIES = {name: text for name, text in os.environ.items() if name.lower().endswith("_proxy")}
# Variables that only a program of a page needs.
_OWN_VARIABLES = ("PATH", "PYTHONPATH", "STAND_IN_WHEELS")
# The queries of the pages are small: compiling code for each costs more than it saves.
NO_CODE_GENERATION = (
    "-Dspark.sql.codegen.wholeStage=false -Dspark.sql.codegen.factoryMode=NO_CODEGEN"
)
# Commands that start Spark with the settings of the local root.
SPARK_COMMAND = re.compile(r"dbx-aml (batches|monitor|notebook|replay|score)")


class Block(NamedTuple):
    """A code block: its language ("" for none) and its text."""

    language: str
    text: str


def read_blocks(page: Path) -> list[Block]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    return [Block(*block) for block in blocks]


class Reader:
    """A reader who runs the blocks of a page in one folder.

    Args:
        folder: Current folder of every block.
        environment: Variables of every block.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._errors = (folder / "stderr.txt").open("w+")
        self._python: subprocess.Popen[str] | None = None
        self._java: subprocess.Popen[str] | None = None
        self._java_variables: dict[str, str] = {}
        self.output = ""

    def run(self, block: Block) -> None:
        runners = {
            "sh": self._run_shell,
            "python": self._run_python,
            "diff": self._compare_with_output,
            "": self._run_cell,
        }
        runners[block.language](block.text)

    def use_databricks(self) -> None:
        """Track and register in the stand-in of Databricks instead of the SQLite file."""
        del self._environment["DBX_AML_DATABRICKS_TRACKING_URI"]
        del self._environment["DBX_AML_REGISTRY"]

    def close(self) -> None:
        for program in filter(None, (self._python, self._java)):
            program.communicate(timeout=60)
            assert program.returncode == 0, self._stderr()
        self._errors.close()

    def _run_shell(self, text: str) -> None:
        environment = self._environment
        if SPARK_COMMAND.search(text):
            self._start_java()
            environment = {**environment, **self._java_variables}
        if "dbx-aml endpoint try" in text:
            environment = self._machine_environment()
        submitted = re.search(r"dbx-aml job submit (\S+)/", text)
        if submitted:
            self._resolve_job_environment(submitted[1])
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self._folder, env=environment, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, check=False,
        )  # fmt: skip
        failure = f"{text}\n{done.stdout}\n{self._stderr()}"
        assert done.returncode == 0, failure
        self.output += done.stdout

    def _start_java(self) -> None:
        """Start the Java process that the commands of the page use, one after the other."""
        if self._java is None:
            self._java = self._start("shared-java")
            assert self._java.stdout is not None
            self._java_variables = json.loads(self._java.stdout.readline())

    def _start(self, program: str) -> subprocess.Popen[str]:
        """Start a program that reads its input while the page runs."""
        return subprocess.Popen(
            [program],
            cwd=self._folder, env=self._environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip

    def _machine_environment(self) -> dict[str, str]:
        """Variables with the package index of this machine, not with the stand-ins."""
        own = {
            name: value
            for name, value in self._environment.items()
            if name.startswith("DBX_AML_") or name in _OWN_VARIABLES
        }
        return {**os.environ, **PROXIES, **own}

    def _resolve_job_environment(self, folder: str) -> None:
        """Resolve the requirements of a job, so that the command finds the result."""
        code = (
            "import sys; from pathlib import Path\n"
            "from dbx_aml.serving.job_environment import resolve_job_environment\n"
            "resolve_job_environment(Path(sys.argv[1]))\n"
        )
        subprocess.run(
            [sys.executable, "-c", code, folder],
            cwd=self._folder, env=self._machine_environment(), check=True,
        )  # fmt: skip

    def _run_python(self, text: str) -> None:
        if self._python is None:
            self._python = self._start("python-blocks")
        assert self._python.stdin is not None and self._python.stdout is not None
        self._python.stdin.write(json.dumps(text) + "\n")
        self._python.stdin.flush()
        for line in self._python.stdout:
            if line == "\0\n":
                return
            self.output += line
        raise AssertionError((text, self._stderr()))

    def _compare_with_output(self, text: str) -> None:
        """Compare a shown difference with the printed one: ids differ, and "..." ends a line."""
        printed = re.sub(r"\d{4}-\d{6}-\w{8}", "ID", self.output).splitlines()
        for line in re.sub(r"\d{4}-\d{6}-\w{8}", "ID", text).splitlines():
            shown = line.removesuffix("...")
            assert any(
                candidate.startswith(shown) if line.endswith("...") else candidate == shown
                for candidate in printed
            ), (line, printed)

    def _run_cell(self, text: str) -> None:
        """Run a notebook with this cell, where the folder of a workspace has the notebooks."""
        shutil.copytree(ROOT / "notebooks", self._folder / WORKSPACE_FOLDER, dirs_exist_ok=True)
        notebook = self._folder / "own.py"
        notebook.write_text(f"# Databricks notebook source\n# MAGIC {text}")
        self._run_shell("dbx-aml notebook run own.py")

    def _stderr(self) -> str:
        self._errors.flush()
        self._errors.seek(0)
        return self._errors.read()[-5000:]


@pytest.fixture(scope="session")
def program_call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The start of a shell command that calls one of the documented programs."""
    folder = tmp_path_factory.mktemp("programs")
    address = folder / "socket"
    environment = {**clean_environment(), "MLFLOW_DISABLE_TELEMETRY": "true"}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        server = start_child(
            [sys.executable, "-m", "tests.support.documented_programs", str(listener.fileno())],
            folder / "log.txt", environment=environment, folder=ROOT, pass_fds=[listener.fileno()],
        )  # fmt: skip
    yield shlex.join([sys.executable, "-IS", str(CLIENT), str(address)])
    server.kill()
    server.wait()


@pytest.fixture
def reader(
    tmp_path: Path,
    databricks: Databricks,
    azureml: AzureMl,
    monkeypatch: pytest.MonkeyPatch,
    program_call: str,
) -> Iterator[Reader]:
    """A reader with a link to both stand-ins, notebooks, a cluster "team" and a package index."""
    folder = tmp_path / "reader"
    workspace = databricks.environment()
    isolate_from_machine(monkeypatch, folder)
    databricks.volumes.add("main.ml.dbx_aml")
    databricks.volumes.add("main.flights.models")
    databricks.volumes.add("main.ops.init")
    databricks.volumes.add("main.dbx_aml.files")
    databricks.volumes.files["/Volumes/main/ops/init/proxy.sh"] = b"#!/bin/bash\n"
    databricks.grants.grant("volume", "main.flights.models", USER, "READ_VOLUME", "WRITE_VOLUME")
    databricks.clusters.add(
        "team",
        init_scripts=[{"volumes": {"destination": "/Volumes/main/ops/init/proxy.sh"}}],
        spark_env_vars={"HTTPS_PROXY": "http://proxy.contoso.com"},
    )
    databricks.boot.run_script = leaves_marker()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text(f'#!/bin/sh\nexec {program_call} {name} "$@"\n')
        (programs / name).chmod(0o755)
    for name in ("notebooks", "init_scripts"):
        shutil.copytree(ROOT / name, folder / name)
    aml_workspace = AmlWorkspace.from_tracking_uri(azureml.tracking_uri)
    Link(mode="dual", aml_workspace=aml_workspace).save(folder)
    index_folder = tmp_path / "index"
    write_plugin(index_folder)
    write_additions(index_folder)
    with serve(index_folder) as index:
        environment = {
            **os.environ,
            **azureml.environment(),
            **workspace,
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            # A SQLite file stands for MLflow in Databricks.
            "DBX_AML_DATABRICKS_TRACKING_URI": f"sqlite:///{folder}/databricks.db",
            "DBX_AML_REGISTRY": "databricks",
            "DBX_AML_LOCAL_ROOT": str(folder / ".dbx_aml"),
            "PIP_INDEX_URL": index.url,
            "STAND_IN_WHEELS": str(index_folder),
            "UV_NO_CACHE": "1",
            "JAVA_TOOL_OPTIONS": f"{SHORT_JOB_JAVA_OPTIONS} {NO_CODE_GENERATION}",
        }
        reader = Reader(folder, environment)
        yield reader
        reader.close()


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.azureml
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(reader: Reader, page: Path) -> None:
    blocks = read_blocks(page)
    assert blocks, "a page without examples"
    if page.stem == "doctor":
        reader.use_databricks()
    for block in blocks:
        reader.run(block)
    if page.name == "README.md":
        assert "3 rows scored by version 1" in reader.output
        assert "Already scored" in reader.output
        assert "equal to pyfunc.predict" in reader.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_readme_links_every_page_of_docs() -> None:
    text = PAGES[0].read_text("utf-8")
    assert len(PAGES) > 5
    missing = [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in text]
    assert not missing
