"""The body of a request to Azure ML's scoring server, and the rows of a file for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from dbx_aml._common.errors import ArgumentError
from dbx_aml._common.text import one_line

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Rows = pd.DataFrame | np.ndarray[Any, Any] | dict[str, Any] | list[Any]


def request_body(rows: Rows) -> bytes:
    """Return the JSON that the scoring server takes: `input_data` with columns, index and data.

    Numbers keep every digit, times are texts, bytes are base64, and a missing value is null.

    Args:
        rows: Frame or array; or the content of `input_data`; or a request with that key.

    Raises:
        ArgumentError: A value has no form in JSON.

    Source:
        Microsoft Learn, "Deploy MLflow models to online endpoints"; seen 2026-11.
    """
    import pandas as pd
    from mlflow.utils.proto_json_utils import NumpyEncoder

    content: Any = rows
    if isinstance(rows, pd.DataFrame):
        content = rows.astype(object).where(rows.notna(), cast(Any, None)).to_dict(orient="split")
        # The answer is a list in the order of the rows: their labels would be lost.
        del content["index"]
    body = content if isinstance(content, dict) and "input_data" in content else None
    if body is None:
        if isinstance(content, dict) and set(content) == {"columns", "data"}:
            # A model without signature and example needs it.
            content = {**content, "index": list(range(len(content["data"])))}
        body = {"input_data": content}
    try:
        return json.dumps(body, cls=NumpyEncoder).encode()
    except TypeError as err:
        raise ArgumentError(
            f"rows must hold values that JSON can hold: got {one_line(err)}; convert them to "
            "numbers, texts or times"
        ) from err


def first_row(rows: Rows) -> Rows:
    """Return rows for `request_body` without all but the first, if they have an order."""
    if not isinstance(rows, dict):
        return rows[:1]
    content = rows.get("input_data")
    if isinstance(content, dict | list):
        body: dict[str, Any] = json.loads(request_body(first_row(content)))
        return {**rows, **body}
    if {"columns", "data"} <= set(rows):
        return {"columns": rows["columns"], "data": rows["data"][:1]}
    return rows


def parse_rows(text: str) -> dict[str, Any] | list[Any]:
    """Return the rows of a JSON file for `request_body`.

    Raises:
        ArgumentError: The text is not JSON, or neither an object nor a list.
    """
    try:
        rows = json.loads(text)
    except ValueError as err:
        raise ArgumentError(
            f"rows must be JSON: got {one_line(text, 60)!r}; {err}; write for example "
            '{"columns": ["x"], "data": [[1.5]]}'
        ) from err
    if not isinstance(rows, dict | list):
        raise ArgumentError(
            f"rows must be an object or a list: got {one_line(text, 60)!r}; write for example "
            '{"columns": ["x"], "data": [[1.5]]}'
        )
    return rows
