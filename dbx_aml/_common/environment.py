"""Environment variables that are set for the length of a block."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def environment_variables(**values: str | None) -> Iterator[None]:
    """Set environment variables in the block, and restore their old values after it.

    Args:
        values: Values by name; `None` removes a variable.
    """
    old_values = {name: os.environ.get(name) for name in values}
    set_variables(values)
    try:
        yield
    finally:
        set_variables(old_values)


def set_variables(values: Mapping[str, str | None]) -> None:
    """Set environment variables; `None` removes a variable."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
