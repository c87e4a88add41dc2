"""A model's prediction in the types of its signature: every value exact, or an error.

This file travels with the model, see `guard`, and imports nothing of dbx-aml.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import pandas as pd

_INTEGERS: dict[str, Any] = {"integer": np.int32, "long": np.int64}
_FLOATS: dict[str, Any] = {"float": np.float32, "double": np.float64}
# Smallest float beside which another integer has no float of its own.
_FIRST_INEXACT_FLOAT = 2.0**53


def fields_of_output(output: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return names and numpy types of the fields that carry one output through Spark.

    Args:
        output: Dictionary of a `ModelOutput`.
    """
    field, type_name = output["field"], output["type"]
    dtype = {**_INTEGERS, **_FLOATS, "boolean": np.bool_}.get(type_name, object)
    if output["length"] is not None:
        return [(f"{field}_{i}", dtype) for i in range(output["length"])]
    if output["is_list"]:
        return [(field, list)]
    if type_name in _FLOATS:
        return [(field, dtype)]
    return [(field, dtype), (f"{field}_null", np.bool_)]


def placeholder_values(dtype: Any, size: int) -> np.ndarray:
    """Return values for the field of a row that has no prediction."""
    if dtype is list:
        return np.full(size, None, object)
    return np.full(size, "", object) if dtype is object else np.zeros(size, dtype)


def columns_of_prediction(prediction: Any, outputs: list[dict[str, Any]], size: int) -> list[Any]:
    """Return the values of each output, by name where the prediction has names.

    Args:
        prediction: Value that the model returned.
        outputs: Dictionaries of `ModelOutput`.
        size: Number of rows that the model got.

    Raises:
        ValueError: The prediction has other columns or another number of rows.
    """
    is_list = len(outputs) == 1 and (outputs[0]["is_list"] or outputs[0]["length"] is not None)
    prediction = _from_arrow(prediction)
    if isinstance(prediction, list) and prediction and _has_names(prediction[0], is_list=is_list):
        _require_equal_names(prediction, outputs)
        # Of objects: pandas turns integers beside a missing one into floats.
        prediction = pd.DataFrame(prediction, dtype=object)
    if isinstance(prediction, (pd.DataFrame, dict)):
        columns = _columns_by_name(prediction, outputs, size)
    elif is_list:
        columns = [prediction]
    else:
        array = prediction if isinstance(prediction, pd.Series) else _to_array(prediction)
        if array.ndim == 2 and array.shape[1] == len(outputs):
            columns = [array[:, i] for i in range(len(outputs))]
        elif array.ndim == 1 and len(outputs) == 1:
            columns = [array]
        else:
            raise ValueError(
                f"the model must return {len(outputs)} value(s) a row: got shape {array.shape}"
            )
    columns = [_from_arrow(values) for values in columns]
    for values in columns:
        if len(values) != size:
            raise ValueError(
                f"the model must return one row for each row: got {len(values)} for {size}"
            )
    return [_in_order_of_rows(values) for values in columns]


def _from_arrow(values: Any) -> Any:
    """Return a table or a column of Arrow or Polars as pandas has it, else the values as they are.

    numpy would forget the names of a table's columns.
    """
    if not hasattr(type(values), "to_pandas"):
        return values
    return values.to_pandas(integer_object_nulls=True)


def _has_names(row: Any, *, is_list: bool) -> bool:
    """Return whether the prediction for one row says which value belongs to which output."""
    if is_list:
        return isinstance(row, dict)
    return isinstance(row, (dict, pd.Series)) or hasattr(row, "_fields")


def _require_equal_names(rows: list[Any], outputs: list[dict[str, Any]]) -> None:
    """Refuse a prediction that lacks an output which another row's prediction has.

    pandas would make it a null.
    """
    optional = {output["name"] for output in outputs if _is_optional(output)}
    named_rows = [set(row.keys()) for row in rows if isinstance(row, (dict, pd.Series))]
    names = set().union(*named_rows) & {output["name"] for output in outputs} - optional
    if len(outputs) == 1:
        names = names or set().union(*named_rows)
    lacking = sorted({str(name) for row in named_rows for name in names - row})
    if lacking:
        raise ValueError(f"the model must return the same columns for each row: missing {lacking}")


def _is_optional(output: dict[str, Any]) -> bool:
    return not output.get("required", True)


def _columns_by_name(
    prediction: pd.DataFrame | dict[Any, Any], outputs: list[dict[str, Any]], size: int
) -> list[Any]:
    """Return the values of each output, taken by its name in the signature."""
    shown = [str(name) for name in prediction]
    repeated = sorted({name for name in shown if shown.count(name) > 1})
    if repeated:
        raise ValueError(f"the model must return each column once: got {repeated} twice")
    names = [output["name"] for output in outputs]
    missing = [o["name"] for o in outputs if o["name"] not in prediction and not _is_optional(o)]
    if not missing and any(name in prediction for name in names):
        absent = np.full(size, None, object)
        return [prediction.get(name, absent) for name in names]
    if len(outputs) == 1 and len(shown) == 1:
        return [prediction[next(iter(prediction))]]
    if (
        len(outputs) == 1
        and isinstance(prediction, pd.DataFrame)
        and prediction.shape[1] == outputs[0]["length"]
    ):
        # Each element of the list is a column.
        return [pd.Series(list(prediction.to_numpy()), index=prediction.index)]
    raise ValueError(
        f"the model must return the columns of its signature: missing {missing}; got {shown}"
    )


def _in_order_of_rows(values: Any) -> Any:
    """Return values in the order of the rows, whose index is 0 to n - 1.

    Raises:
        ValueError: The index of the values does not say to which rows they belong.
    """
    index = getattr(values, "index", None)
    if not isinstance(index, pd.Index) or index.equals(pd.RangeIndex(len(values))):
        return values
    if index.dtype.kind not in "iu" or not index.sort_values().equals(pd.RangeIndex(len(values))):
        raise ValueError(
            "the index of a prediction must be that of the rows, 0 to n - 1: got "
            f"{[str(label) for label in index[:3]]}; return values without an index"
        )
    return values.sort_index()


def cast_exactly(output: dict[str, Any], values: Any, size: int) -> dict[str, np.ndarray]:
    """Return one output's fields in the type of its signature.

    Args:
        output: Dictionary of a `ModelOutput`.
        values: Values of this output in the model's prediction.
        size: Number of rows that the model got.

    Raises:
        TypeError: A value cannot be represented in the type.
        ValueError: The lists have another shape.
    """
    field, type_name = output["field"], output["type"]
    if output["length"] is not None:
        matrix = _to_array(values)
        if matrix.ndim != 2:
            matrix = np.array([_to_array(row) for row in values])
        if matrix.shape != (size, output["length"]):
            raise ValueError(
                f"the model must return {output['length']} values a row: got shape {matrix.shape}"
            )
        return {
            f"{field}_{i}": _cast_elements(matrix[:, i], type_name) for i in range(matrix.shape[1])
        }
    if output["is_list"]:
        lists = np.full(size, None, object)
        for i, row in enumerate(values):
            if row is not None:
                lists[i] = _cast_elements(row, type_name)
        return {field: lists}
    column, nulls = _cast_scalars(values, type_name)
    if type_name in _FLOATS:
        return {field: column}
    return {field: column, f"{field}_null": np.zeros(size, np.bool_) if nulls is None else nulls}


def _cast_elements(values: Any, type_name: str) -> np.ndarray:
    elements, nulls = _cast_scalars(values, type_name)
    if nulls is not None and nulls.any():
        raise ValueError("a list in a prediction must not hold nulls")
    return elements


def _cast_scalars(values: Any, type_name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return values in numpy's type, and which of them are null; raise if a value would change."""
    array = _to_array(values)
    if type_name in _FLOATS:
        return _cast_floats(array, type_name), None
    nulls = pd.isna(array) if array.dtype.kind in "Of" else None
    filled = array
    if nulls is not None and nulls.any():
        filled = np.where(nulls, "" if type_name == "string" else 0, array)
    if type_name in _INTEGERS:
        return _cast_integers(filled, array.dtype, type_name), nulls
    if type_name == "boolean":
        if filled.dtype.kind == "O" and nulls is not None:
            filled = np.where(nulls, False, filled)
            if not all(isinstance(value, (bool, np.bool_)) for value in filled):
                _raise_wrong_type(type_name, array.dtype)
        elif filled.dtype.kind != "b":
            _raise_wrong_type(type_name, array.dtype)
        return filled.astype(np.bool_), nulls
    strings = filled.astype(object)
    for value in strings:
        if not isinstance(value, str):
            _raise_wrong_type(type_name, repr(value))
        if not value.isascii():
            value.encode()  # Spark takes no text that UTF-8 cannot encode.
    return strings, nulls


def _to_array(values: Any) -> np.ndarray:
    """Return values as an array that keeps each of them; a missing one is null in pandas' sense.

    numpy forgets the mask of a masked array, and turns integers beside a missing one into floats.
    """
    if isinstance(values, np.ma.MaskedArray):
        objects = values.data.astype(object)
        objects[np.ma.getmaskarray(values)] = None
        return objects
    dtype = getattr(values, "dtype", None)
    if isinstance(dtype, pd.api.extensions.ExtensionDtype):
        if pd.api.types.is_float_dtype(dtype):
            return np.asarray(values.to_numpy(np.float64, na_value=np.nan))
        return np.asarray(values.astype(object))
    is_list = isinstance(values, (list, tuple))
    if is_list and any(isinstance(row, np.ma.MaskedArray) for row in values):
        return np.array([_to_array(row) for row in values])
    array = np.asarray(values)
    if is_list and array.dtype.kind == "f" and (np.abs(array) >= _FIRST_INEXACT_FLOAT).any():
        return np.asarray(values, dtype=object)
    return array


def _cast_floats(array: np.ndarray, type_name: str) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        if array.dtype.kind != "O" or any(isinstance(value, (str, bool)) for value in array):
            _raise_wrong_type(type_name, array.dtype)
        array = np.where(pd.isna(array), np.nan, array).astype(np.float64)
    column = array.astype(_FLOATS[type_name], copy=False)
    if column.dtype != array.dtype:
        changed = column.astype(array.dtype) != array
        if array.dtype.kind == "f":
            changed &= ~np.isnan(array)
        if changed.any():
            _raise_wrong_type(type_name, repr(array[changed][0]))
    return column


def _cast_integers(filled: np.ndarray, dtype: Any, type_name: str) -> np.ndarray:
    if filled.dtype.kind == "O":
        if any(isinstance(value, (str, bool)) for value in filled):
            _raise_wrong_type(type_name, dtype)
        for value in filled:
            if value != value // 1:  # also infinity, which int() does not take
                _raise_wrong_type(type_name, repr(value))
        filled = np.array([int(value) for value in filled], object)
    elif filled.dtype.kind not in "iuf":
        _raise_wrong_type(type_name, dtype)
    limits = np.iinfo(_INTEGERS[type_name])
    # A float of 2**63 compares as in range and overflows: the upper limit is open.
    wrong = (filled < limits.min) | (filled >= int(limits.max) + 1)
    if filled.dtype.kind == "f":
        wrong |= filled != np.floor(filled)
    if wrong.any():
        _raise_wrong_type(type_name, repr(filled[wrong][0]))
    return filled.astype(_INTEGERS[type_name])


def _raise_wrong_type(type_name: str, value: object) -> NoReturn:
    raise TypeError(f"prediction must be a {type_name}: got {value}")
