"""Environment variables that are set for a while."""

import os

import pytest

from dbx_aml._common.environment import environment_variables


def test_variables_are_set_in_the_block_and_restored_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OLD", "before")
    monkeypatch.setenv("REMOVED", "before")
    monkeypatch.delenv("NEW", raising=False)
    values = {"OLD": "inside", "REMOVED": None, "NEW": "inside"}
    with pytest.raises(ZeroDivisionError), environment_variables(**values):
        assert {name: os.environ.get(name) for name in values} == values
        raise ZeroDivisionError
    assert (os.environ["OLD"], os.environ["REMOVED"]) == ("before", "before")
    assert "NEW" not in os.environ
