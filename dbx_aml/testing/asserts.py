"""chispa's asserts on data frames, with a hint at the arguments that most failures need.

from dbx_aml.testing.asserts import assert_df_equality

assert_df_equality(actual, expected, ignore_row_order=True)
assert_approx_df_equality(actual, expected, precision=0.01, ignore_row_order=True)
assert_column_equality(frame, "minutes", "expected")
assert_approx_column_equality(frame, "minutes", "expected", precision=0.01)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from dbx_aml._common.text import install_command

try:
    import chispa
except ImportError as err:
    raise ImportError(
        f"the asserts must have chispa: got none; run: {install_command('test')}", name="chispa"
    ) from err

__all__ = [
    "assert_approx_column_equality",
    "assert_approx_df_equality",
    "assert_column_equality",
    "assert_df_equality",
]

_FRAME_HINT = (
    "chispa compares the order of rows and columns, types, nullability and NaN, too. To ignore "
    "one: ignore_row_order=True, ignore_column_order=True, ignore_nullable=True or "
    "allow_nan_equality=True. For numbers that differ slightly: assert_approx_df_equality(actual, "
    "expected, precision=0.01)."
)
_COLUMN_HINT = (
    "chispa compares two columns of one data frame, row by row: assert_column_equality(frame, "
    '"minutes", "expected"). For numbers that differ slightly: assert_approx_column_equality('
    'frame, "minutes", "expected", precision=0.01).'
)


def _with_hint(function: Callable[..., None], hint: str) -> Callable[..., None]:
    @wraps(function)
    def compare(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        try:
            function(*args, **kwargs)
        except Exception as err:
            # A failed comparison and a wrong call have different classes; both get the hint.
            err.add_note(hint)
            raise

    return compare


assert_df_equality = _with_hint(chispa.assert_df_equality, _FRAME_HINT)
assert_approx_df_equality = _with_hint(chispa.assert_approx_df_equality, _FRAME_HINT)
assert_column_equality = _with_hint(chispa.assert_column_equality, _COLUMN_HINT)
assert_approx_column_equality = _with_hint(chispa.assert_approx_column_equality, _COLUMN_HINT)
