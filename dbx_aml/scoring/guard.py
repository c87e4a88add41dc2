"""The model as Spark's workers run it: bad rows set aside, one thread a task, loaded once.

This file travels with the model (it is copied into it, see `model.py`), so that it also runs
where dbx-aml is not installed: it imports nothing of dbx-aml. MLflow loads it through
`_load_pyfunc`, the entry point of every pyfunc flavor.
"""

from __future__ import annotations

import gc
import json
import os
from typing import Any

import numpy as np
import pandas as pd

SPEC_FILE = "spec.json"
MODEL_FOLDER = "model"
BAD = "bad"
REASON = "reason"
UNFIT = "_dbx_aml_unfit"
STRICT = "strict"
# What a strict guard's error begins with; the reason of the first row follows.
EVERY_ROW = "dbx_aml: an error on every row, "
# Below this many rows, asking each row costs less than halving on.
_ROW_BY_ROW = 8
_REASON_LENGTH = 300
_THREAD_PARAMETERS = ("n_jobs", "nthread", "num_threads", "thread_count")
_INTEGERS: dict[str, Any] = {"integer": np.int32, "long": np.int64}
_FLOATS: dict[str, Any] = {"float": np.float32, "double": np.float64}

# The one model of this worker process, by what it is: MLflow calls `_load_pyfunc` once a task, and
# loading is what a task would otherwise mostly consist of. One only, so that a worker that
# outlives many jobs does not collect models.
_loaded: dict[str, Any] = {}
# The job in which this process has scored a row.
_proven: list[str] = []


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Guard:
    with open(os.path.join(path, SPEC_FILE), encoding="utf-8") as file:
        spec = json.load(file)
    key = spec["model"]
    if key not in _loaded:
        import mlflow.pyfunc

        model = mlflow.pyfunc.load_model(os.path.join(path, MODEL_FOLDER), suppress_warnings=True)
        use_one_thread(model)
        _loaded.clear()
        _loaded[key] = model
        # After every task PySpark's daemon collects garbage in the worker; with a library and
        # a model on the heap that takes longer than a small task. Frozen objects are skipped.
        gc.collect()
        gc.freeze()
    strict = spec["job"] if (model_config or {}).get(STRICT) else None
    return Guard(_loaded[key], spec["outputs"], spec["unfit"], strict)


class Guard:
    """A model whose `predict` never raises for a bad row: it says which rows are bad, and why.

    Args:
        model: What predicts: `predict(DataFrame) -> array, Series, DataFrame, list or dict`.
        outputs: The predictions, as `contract.Output` writes them.
        unfit: Reasons by code, for rows that the input table itself made unfit.
        strict: The job, to raise where no row is scored in what this process sees of it first: a
            model that always fails then ends the job, and no row had to be tried before it.
    """

    def __init__(
        self,
        model: Any,
        outputs: list[dict[str, Any]],
        unfit: list[str],
        strict: str | None = None,
    ) -> None:
        self._model = model
        self._outputs = outputs
        self._unfit = unfit
        self._strict = strict

    def predict(self, rows: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row for each row: the fields of the predictions, `bad` and `reason`.

        Shape: n rows x model columns -> n rows x (fields + 2), in the same order. A bad row
            has `bad` true, its `reason`, and fillers for predictions.
        """
        size = len(rows)
        result = {
            name: _filler(dtype, size)
            for output in self._outputs
            for name, dtype in _fields(output)
        }
        bad = np.zeros(size, np.bool_)
        reasons = np.full(size, "", object)
        good = np.arange(size)
        if UNFIT in rows:
            codes = rows[UNFIT].to_numpy()
            rows = rows.drop(columns=UNFIT)
            for position in np.flatnonzero(codes):
                bad[position], reasons[position] = True, self._unfit[int(codes[position]) - 1]
            good = np.flatnonzero(~bad)

        def take(positions: np.ndarray, fields: dict[str, np.ndarray]) -> None:
            for name, values in fields.items():
                result[name][positions] = values

        def try_rows(positions: np.ndarray) -> Exception | None:
            try:
                # The whole batch is handed over as it is: no copy where no row is bad.
                whole = len(positions) == size
                fields = self._ask(rows if whole else rows.iloc[positions])
            except Exception as err:  # noqa: BLE001 - any error of a user's model is the row's
                return err
            take(positions, fields)
            return None

        def ask(positions: np.ndarray) -> None:
            err = try_rows(positions) if len(positions) else None
            if err is None:
                return
            if len(positions) == 1:
                bad[positions[0]], reasons[positions[0]] = True, _reason(err)
                return
            for part in _parts(rows, positions):
                ask(part)

        ask(good)
        if self._strict and self._strict not in _proven and size:
            if bad.all():
                raise RuntimeError(f"{EVERY_ROW}{reasons[0]}")
            _proven[:] = [self._strict]
        return pd.DataFrame({**result, BAD: bad, REASON: reasons}, copy=False)

    def _ask(self, rows: pd.DataFrame) -> dict[str, np.ndarray]:
        answer = self._model.predict(rows)
        fields: dict[str, np.ndarray] = {}
        for output, values in zip(
            self._outputs, _columns(answer, self._outputs, len(rows)), strict=True
        ):
            fields.update(_exact(output, values, len(rows)))
        return fields


def _parts(rows: pd.DataFrame, positions: np.ndarray) -> list[np.ndarray]:
    """Split rows that failed together: by what looks odd, then in halves, then one by one.

    Missing and infinite values are the usual reason, so they are asked apart first: the
    others then pass in one call however many there are.
    """
    odd = _odd(rows.iloc[positions])
    if 0 < odd.sum() < len(positions):
        return [positions[~odd], positions[odd]]
    if len(positions) <= _ROW_BY_ROW:
        return list(positions.reshape(-1, 1))
    middle = len(positions) // 2
    return [positions[:middle], positions[middle:]]


def _odd(rows: pd.DataFrame) -> np.ndarray:
    odd = rows.isna().to_numpy().any(axis=1)
    for _, column in rows.select_dtypes(["float32", "float64"]).items():
        odd |= np.isinf(column.to_numpy())
    return np.asarray(odd)


def _reason(err: Exception) -> str:
    text = " ".join(f"{type(err).__name__}: {err}".split())
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 1] + "…"


def _fields(output: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the names and numpy types of the fields that carry one output through Spark."""
    field, kind = output["field"], output["type"]
    dtype = {**_INTEGERS, **_FLOATS, "boolean": np.bool_}.get(kind, object)
    if output["length"] is not None:
        return [(f"{field}_{i}", dtype) for i in range(output["length"])]
    if output["list"]:
        return [(field, list)]
    if kind in _FLOATS:
        return [(field, dtype)]
    return [(field, dtype), (f"{field}_null", np.bool_)]


def _filler(dtype: Any, size: int) -> np.ndarray:
    if dtype is list:
        return np.full(size, None, object)
    return np.full(size, "", object) if dtype is object else np.zeros(size, dtype)


def _columns(answer: Any, outputs: list[dict[str, Any]], size: int) -> list[Any]:
    """Return the answer's values by output, by name wherever it has names."""
    if len(outputs) == 1 and (outputs[0]["list"] or outputs[0]["length"] is not None):
        values = answer
        if isinstance(answer, dict):
            values = next(iter(answer.values()))
        if isinstance(answer, pd.DataFrame):
            # One column of lists, or the list's elements as columns.
            values = answer.iloc[:, 0] if answer.shape[1] == 1 else answer.to_numpy()
        columns = [values]
    elif isinstance(answer, (pd.DataFrame, dict)) or (
        isinstance(answer, list) and answer and isinstance(answer[0], dict)
    ):
        frame = answer if isinstance(answer, dict) else pd.DataFrame(answer)
        names = [output["name"] for output in outputs]
        if len(outputs) == 1 and len(frame.keys()) == 1:
            names = list(frame.keys())
        missing = [name for name in names if name not in frame]
        if missing:
            raise ValueError(
                f"the model must return the columns of its signature: missing {missing}; "
                f"got {[str(name) for name in frame]}"
            )
        columns = [frame[name] for name in names]
    else:
        array = answer if isinstance(answer, pd.Series) else np.asarray(answer)
        if array.ndim == 2 and array.shape[1] == len(outputs):
            columns = [array[:, i] for i in range(len(outputs))]
        elif array.ndim == 1 and len(outputs) == 1:
            columns = [array]
        else:
            raise ValueError(
                f"the model must return {len(outputs)} value(s) a row: got shape {array.shape}"
            )
    for values in columns:
        if len(values) != size:
            raise ValueError(f"the model must return a row for a row: got {len(values)} for {size}")
    return columns


def _exact(output: dict[str, Any], values: Any, size: int) -> dict[str, np.ndarray]:
    """Return one output's fields in the type its signature names; raise rather than change one."""
    field, kind = output["field"], output["type"]
    if output["length"] is not None:
        matrix = np.asarray(values)
        if matrix.ndim != 2:
            matrix = np.array([np.asarray(row) for row in values])
        if matrix.shape != (size, output["length"]):
            raise ValueError(
                f"the model must return {output['length']} values a row: got shape {matrix.shape}"
            )
        return {f"{field}_{i}": _items(matrix[:, i], kind) for i in range(output["length"])}
    if output["list"]:
        lists = np.full(size, None, object)
        for i, row in enumerate(values):
            if row is not None:
                lists[i] = _items(row, kind)
        return {field: lists}
    column, nulls = _scalars(values, kind)
    if kind in _FLOATS:
        return {field: column}
    return {field: column, f"{field}_null": np.zeros(size, np.bool_) if nulls is None else nulls}


def _items(values: Any, kind: str) -> np.ndarray:
    items, nulls = _scalars(values, kind)
    if nulls is not None and nulls.any():
        raise ValueError("a list in a prediction must not hold nulls")
    return items


def _scalars(values: Any, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return values as numpy's own type for `kind`, and which are null; raise if any changes."""
    array = values.to_numpy() if isinstance(values, pd.Series) else np.asarray(values)
    if kind in _FLOATS:
        if array.dtype.kind not in "fiu":
            if array.dtype.kind != "O" or any(isinstance(v, (str, bool)) for v in array):
                raise TypeError(f"prediction must be a {kind}: got {array.dtype}")
            array = pd.Series(array).astype(np.float64).to_numpy()
        column = array.astype(_FLOATS[kind], copy=False)
        if column.dtype != array.dtype:
            changed = column.astype(array.dtype) != array
            if array.dtype.kind == "f":
                changed &= ~np.isnan(array)
            if changed.any():
                raise TypeError(f"prediction must be a {kind}: got {array[changed][0]!r}")
        return column, None
    nulls = None
    if array.dtype.kind in "Of":
        nulls = pd.isna(array)
        filled = np.where(nulls, "" if kind == "string" else 0, array) if nulls.any() else array
    else:
        filled = array
    if kind in _INTEGERS:
        if filled.dtype.kind == "O":
            if any(isinstance(v, (str, bool)) for v in filled):
                raise TypeError(f"prediction must be a {kind}: got {array.dtype}")
            filled = np.array([int(v) if int(v) == v else _not(kind, v) for v in filled], object)
        elif filled.dtype.kind not in "iuf":
            raise TypeError(f"prediction must be a {kind}: got {array.dtype}")
        limits = np.iinfo(_INTEGERS[kind])
        # A float of 2**63 compares as in range and overflows: the upper limit is open.
        wrong = (filled < limits.min) | (filled >= int(limits.max) + 1)
        if filled.dtype.kind == "f":
            wrong |= filled != np.floor(filled)
        if wrong.any():
            _not(kind, filled[wrong][0])
        return filled.astype(_INTEGERS[kind]), nulls
    if kind == "boolean":
        if filled.dtype.kind == "O" and nulls is not None:
            filled = np.where(nulls, False, filled)
            if not all(isinstance(v, (bool, np.bool_)) for v in filled):
                raise TypeError(f"prediction must be a {kind}: got {array.dtype}")
        elif filled.dtype.kind != "b":
            raise TypeError(f"prediction must be a {kind}: got {array.dtype}")
        return filled.astype(np.bool_), nulls
    strings = filled.astype(object)
    for value in strings:
        if not isinstance(value, str):
            raise TypeError(f"prediction must be a string: got {value!r}")
    return strings, nulls


def _not(kind: str, value: Any) -> Any:
    raise TypeError(f"prediction must be a {kind}: got {value!r}")


def use_one_thread(model: Any) -> None:
    """Set `n_jobs` and its like to 1 in every estimator inside a model.

    Spark already runs one task a core; a model saved with `n_jobs=-1` would start as many
    threads again in each of them. Fitted estimators of an ensemble are not among its
    parameters, so attributes are walked, not `get_params`.
    """
    seen: set[int] = set()
    todo: list[Any] = [getattr(model, "_model_impl", model)]
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, (list, tuple)):
            todo.extend(x for x in item if hasattr(x, "__dict__") or isinstance(x, (list, tuple)))
        elif hasattr(item, "__dict__") and not isinstance(item, type):
            for name in _THREAD_PARAMETERS:
                if hasattr(item, "get_params") and item.__dict__.get(name) not in (None, 1):
                    setattr(item, name, 1)
            if hasattr(item, "get_params") or _may_hold_a_model(item):
                todo.extend(vars(item).values())


def _may_hold_a_model(item: Any) -> bool:
    root = type(item).__module__.partition(".")[0]
    return root not in ("builtins", "numpy", "pandas", "pyarrow", "threading", "logging", "scipy")
