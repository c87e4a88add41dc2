"""Calls of uv."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from dbx_aml._common.errors import ProgramError
from dbx_aml._common.uv import index_variables, run_uv, uv_error_line


def test_uv_is_found_in_this_environment_or_on_the_path(monkeypatch) -> None:
    output = run_uv(("--version",), 30)
    assert output.startswith("uv ")
    program = shutil.which("uv") or importlib.import_module("uv").find_uv_bin()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: program)
    assert run_uv(("--version",), 30) == output


def test_a_machine_without_uv_is_told_which_extra_brings_it(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ProgramError, match=r"uv must be installed.*pip install.*\[serve\]"):
        run_uv(("--version",), 30)


@pytest.mark.parametrize(
    "stderr",
    [
        "error: No solution found\n  cause: Because a needs b,\n         a is out.\n",
        "  × No solution found\n  ╰─▶ Because a needs b,\n      a is out.\n",
    ],
)
def test_the_reason_of_uv_is_one_line_without_its_marks(stderr) -> None:
    line = uv_error_line(ProgramError("uv must succeed", exit_code=1, stderr=stderr))
    assert line == "No solution found Because a needs b, a is out."
    assert uv_error_line(ProgramError("uv must end within 3 s")) == "uv must end within 3 s"


def test_uv_asks_the_index_of_pip_unless_it_has_its_own(monkeypatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.contoso.com/simple")
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    assert index_variables()["UV_DEFAULT_INDEX"] == "https://index.contoso.com/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.contoso.com/simple")
    assert index_variables()["UV_DEFAULT_INDEX"] == "https://uv.contoso.com/simple"
