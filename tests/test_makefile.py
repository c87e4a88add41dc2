"""The Makefile and the scripts beside it: help, and set-up that fails with the next step."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

pytestmark = pytest.mark.shell


def test_make_alone_prints_help_with_every_target() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    described = re.findall(r"^  make ([a-z-]+) +\S", done.stdout, re.MULTILINE)
    assert {"setup", "demo", "test", "check", "bench", "nightly"} <= set(TARGETS)
    assert described == TARGETS


def test_every_target_is_phony_so_that_a_file_of_that_name_changes_nothing() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == set(TARGETS)


@pytest.mark.slow
def test_every_text_file_keeps_line_feeds_on_a_machine_that_turns_line_ends() -> None:
    """A cluster runs no script with CRLF, as Git writes it with core.autocrlf."""
    attributes = subprocess.run(
        ["git", "-c", "core.autocrlf=true", "ls-files", "--eol"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not attributes.stdout:
        pytest.skip("needs a Git checkout")
    files = [line.split(maxsplit=1) for line in attributes.stdout.splitlines()]
    assert len(files) > 100
    assert [line for line in files if "attr/text=auto eol=lf" not in line[1]] == []


def setup_with(tools: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run .ci/setup in a copy of the checkout where only these tools exist."""
    checkout = folder / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    (checkout / ".ci" / "setup").write_text((ROOT / ".ci" / "setup").read_text())
    (checkout / "setup.py").write_text("")
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name in ("bash", "cat", "dirname", "sha256sum"):
        found = subprocess.run(["which", name], capture_output=True, text=True, check=True)
        (bin_folder / name).symlink_to(found.stdout.strip())
    for name, script in tools.items():
        (bin_folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (bin_folder / name).chmod(0o755)
    return subprocess.run(
        ["bash", str(checkout / ".ci" / "setup")],
        env={"PATH": str(bin_folder), "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        check=False,
    )


def test_setup_without_a_new_enough_python_says_so_in_one_line(tmp_path: Path) -> None:
    python = 'case "$2" in *"sys.exit(sys.version_info < (3, 11))") exit 1;; esac'
    done = setup_with({"python3": python}, tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "setup: failed: Python 3.11 or newer is needed: install it or set PYTHON=<path>\n"
    )


def test_setup_that_may_not_install_packages_says_which_one_is_missing(tmp_path: Path) -> None:
    """No root, no sudo, and a Python without its venv module, as Debian ships it."""
    python = (
        'case "$2" in *version_info\\ *) exit 0;; *ensurepip*) exit 1;; '
        "*print*) echo python3.11-venv;; esac"
    )
    done = setup_with({"python3": python, "id": "echo 1000"}, tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"setup: failed: {tmp_path}/bin/python3 cannot make a virtual environment; "
        "run: sudo apt-get install python3.11-venv"
    )
