"""Programs that are run to their end, with a deadline."""

import os
import sys
import time

import pytest

from dbx_aml._common.errors import ProgramError
from dbx_aml._common.programs import run_program


def test_a_program_gets_its_input_and_variables_and_returns_its_output() -> None:
    code = "import os, sys; print(os.environ['NAME'], sys.stdin.read())"
    output = run_program(
        [sys.executable, "-c", code],
        30,
        environment={**os.environ, "NAME": "ana"},
        input_text="text",
    )
    assert output.split() == ["ana", "text"]


def test_a_failure_is_one_line_with_the_last_error_and_without_secrets() -> None:
    code = "import sys; sys.exit('first\\nhttps://ana:pw@index/simple not found')"
    with pytest.raises(ProgramError, match="status 1") as caught:
        run_program([sys.executable, "-c", code], 30)
    assert "https://***@index/simple not found" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert caught.value.stderr.startswith("first")


def test_at_the_deadline_the_program_and_its_children_are_killed() -> None:
    # The child holds the pipe open: only its end lets the call return.
    code = "import subprocess; subprocess.run(['sleep', '60'])"
    started = time.monotonic()
    with pytest.raises(ProgramError, match=r"must end within 0\.5 s"):
        run_program([sys.executable, "-c", code], 0.5)
    assert time.monotonic() - started < 20


def test_a_program_that_does_not_exist_is_named() -> None:
    with pytest.raises(ProgramError, match="program must start: got 'no-such-program'"):
        run_program(["no-such-program"], 5)


@pytest.mark.parametrize(("start_new_session", "has_own_group"), [(True, True), (False, False)])
def test_a_process_that_the_program_leaves_cannot_hold_the_caller_beyond_the_deadline(
    start_new_session: bool, has_own_group: bool
) -> None:
    arguments = f"['sleep', '30'], start_new_session={start_new_session}"
    code = (
        "import subprocess, sys; sys.stderr.write('before\\n'); sys.stderr.flush(); "
        f"subprocess.run({arguments})"
    )
    started = time.monotonic()
    with pytest.raises(ProgramError, match=r"must end within 2 s: .* its last error is 'before'"):
        run_program([sys.executable, "-c", code], 2, has_own_group=has_own_group)
    assert time.monotonic() - started < 15
