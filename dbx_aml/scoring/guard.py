"""The model as Spark's workers run it: it marks the rows that it cannot score and never raises.

This file, `guard_casts`, `guard_several` and `guard_loader` travel with the model (`guarded_model`
copies them into it), so they run where dbx-aml is not installed and import nothing of it.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import pandas as pd

# Relative: in the model this is another package.
from .guard_casts import (
    cast_exactly,
    columns_of_prediction,
    fields_of_output,
    placeholder_values,
)

# Fields of the result, and the column with the code of the rows that the table made unscorable.
QUARANTINED = "quarantined"
REASON = "reason"
UNSCORABLE = "_dbx_aml_unscorable"
# Start of the columns that say where an optional integer is missing; the column's name follows.
MISSING = "_dbx_aml_missing_"
# Start of a strict guard's error; the reason of the first row follows.
EVERY_ROW_FAILED = "dbx_aml: an error on every row, "
# Start of a limited guard's error: so many quarantined rows in one task would fill the driver.
TOO_MANY_REASONS = "dbx_aml: a task has more quarantined rows than the driver takes"
# Most quarantined rows of a task that go to the driver, with about 70 bytes each, and most
# different reasons, with up to 400 bytes each.
_MOST_ROWS = 5000
_MOST_REASONS = 1000
# Largest integer up to which a float holds every one.
_LARGEST_EXACT_FLOAT = 2**53
_REASON_LENGTH = 300
_THREAD_PARAMETERS = ("n_jobs", "nthread", "num_threads", "thread_count")
_LIBRARIES_WITHOUT_MODELS = (
    "builtins", "numpy", "pandas", "pyarrow", "threading", "logging", "scipy",
)  # fmt: skip

# The job in which this process has scored a row.
_verified_jobs: list[str] = []


class Limits:
    """When a guard ends its query with an error.

    Args:
        strict_job: Job to end if this process scores no row of the first that it gets. A model
            that always fails then ends its job without a trial before it.
        is_limited: Whether the driver gets each quarantined row and each different reason: this
            guard, one a task, then ends the query where these are too many.
    """

    def __init__(self, strict_job: str | None = None, *, is_limited: bool = False) -> None:
        self._strict_job = strict_job
        self._is_limited = is_limited
        self._quarantined_rows = 0
        self._reasons: set[str] = set()

    def check(self, quarantined: np.ndarray, reasons: np.ndarray) -> None:
        """Raise if these rows, and the rows before them, are over a limit."""
        if self._strict_job and self._strict_job not in _verified_jobs and len(quarantined):
            if quarantined.all():
                raise RuntimeError(f"{EVERY_ROW_FAILED}{reasons[0]}")
            _verified_jobs[:] = [self._strict_job]
        if not self._is_limited:
            return
        self._quarantined_rows += int(quarantined.sum())
        self._reasons.update(reasons[quarantined])
        if self._quarantined_rows > _MOST_ROWS or len(self._reasons) > _MOST_REASONS:
            raise RuntimeError(TOO_MANY_REASONS)


class Guard:
    """A model whose `predict` marks each row that the model fails on, with the reason.

    Args:
        model: Loaded model with `predict(DataFrame) -> array, Series, DataFrame, list or dict`.
        outputs: Outputs of the signature, as the dictionaries of `ModelOutput`.
        unscorable_reasons: Reasons by code, for rows that the input table made unscorable.
        columns: Names of the columns; None for rows that have them.
        limits: When the guard ends its query; by default never.
        modules: Context in which the model finds the modules that it brought.
    """

    def __init__(
        self,
        model: Any,
        outputs: list[dict[str, Any]],
        unscorable_reasons: list[str],
        columns: list[str] | None = None,
        limits: Limits | None = None,
        modules: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._model = model
        self._outputs = outputs
        self._unscorable_reasons = unscorable_reasons
        self._columns = columns
        self._limits = limits or Limits()
        self._modules = modules

    def predict(self, rows: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the predictions, and for each row whether and why it goes to the quarantine.

        Shape: n rows x model columns -> n rows x (fields + 2), in the same order. A quarantined
            row has `quarantined` true, its `reason`, and placeholders for predictions.
        """
        size = len(rows)
        if self._columns is not None:
            rows.columns = pd.Index(self._columns)
        result = {
            name: placeholder_values(dtype, size)
            for output in self._outputs
            for name, dtype in fields_of_output(output)
        }
        quarantined = np.zeros(size, np.bool_)
        reasons = np.full(size, "", object)
        scorable = np.arange(size)
        if UNSCORABLE in rows:
            codes = rows[UNSCORABLE].to_numpy()
            rows = rows.drop(columns=UNSCORABLE)
            for position in np.flatnonzero(codes):
                quarantined[position] = True
                reasons[position] = self._unscorable_reasons[int(codes[position]) - 1]
            scorable = np.flatnonzero(~quarantined)

        missing = {
            str(name).removeprefix(MISSING): rows[name].to_numpy().astype(np.bool_)
            for name in rows.columns
            if str(name).startswith(MISSING)
        }
        rows = rows.drop(columns=[MISSING + name for name in missing]) if missing else rows
        missing = {name: flags for name, flags in missing.items() if flags.any()}
        original = _Original(rows)
        is_first = True

        def predict_rows(positions: np.ndarray) -> BaseException | None:
            """Store the fields of these rows; return the model's error if it fails on one."""
            nonlocal is_first
            # The first call gets the batch itself where no row is unscorable.
            part = rows if is_first and len(positions) == size else original.take(positions)
            is_first = False
            floats = {
                name: part[name].astype(np.float64).mask(flags[positions])
                for name, flags in missing.items()
                if flags[positions].any()
            }
            try:
                fields = self._predict_fields(part.assign(**floats) if floats else part, floats)
                for name, values in fields.items():
                    result[name][positions] = values
            except KeyboardInterrupt:
                raise
            except BaseException as err:  # noqa: BLE001 - sys.exit, or a panic of a Rust library
                return err
            return None

        def quarantine_failing(positions: np.ndarray, err: BaseException | None) -> None:
            """Predict these rows and quarantine those that the model fails on.

            Generalized binary splitting (Hwang 1972): the first failing row of a group is found
            by halving; where its first half passes, the second one is known to fail without a
            call. The next group is as large as the failing rows lie apart.

            Args:
                positions: Positions of the rows in the batch.
                err: The model's error for all these rows together, or None before a call.
            """
            start, group_size = 0, len(positions)
            while start < len(positions):
                end = min(start + group_size, len(positions))
                if err is None:
                    err = predict_rows(positions[start:end])
                if err is None:
                    start, group_size = end, 2 * group_size
                    continue
                first = start
                while end - first > 1:
                    middle = (first + end) // 2
                    err = predict_rows(positions[first:middle])
                    first, end = (middle, end) if err is None else (first, middle)
                if err is None:
                    # No row is quarantined without a call for it alone.
                    err = predict_rows(positions[first:end])
                if err is not None:
                    quarantined[positions[first]] = True
                    reasons[positions[first]] = _reason(err)
                    err = None
                start, group_size = end, end - start

        for positions in _split_inexact_floats(rows, missing, scorable):
            err = predict_rows(positions)
            if err is None:
                continue
            usual, unusual = _split_unusual_rows(rows, missing, positions)
            quarantine_failing(usual, None if len(unusual) else err)
            quarantine_failing(unusual, None if len(usual) else err)
        self._limits.check(quarantined, reasons)
        # A category: MLflow converts each category to text once, and not each row's value.
        texts = pd.Categorical(reasons) if quarantined.any() else _no_reasons(size)
        return pd.DataFrame({**result, QUARANTINED: quarantined, REASON: texts}, copy=False)

    def _predict_fields(
        self, rows: pd.DataFrame, float_names: Collection[str]
    ) -> dict[str, np.ndarray]:
        with self._modules(), _accept_floats(self._model, float_names):
            prediction = self._model.predict(rows)
        columns = columns_of_prediction(prediction, self._outputs, len(rows))
        fields: dict[str, np.ndarray] = {}
        for output, values in zip(self._outputs, columns, strict=True):
            fields.update(cast_exactly(output, values, len(rows)))
        return fields


@contextmanager
def _accept_floats(model: Any, names: Collection[str]) -> Iterator[None]:
    """Let MLflow's check pass these columns of integers as floats, with NaN where one is missing.

    The check refuses every missing integer, also in a column that the signature calls optional.
    """
    signature = getattr(getattr(model, "metadata", None), "signature", None)
    if not names or signature is None:
        yield
        return
    from mlflow.types.schema import ColSpec, DataType, Schema

    inputs = signature.inputs
    signature.inputs = Schema(
        [
            ColSpec(DataType.double, spec.name, required=False) if spec.name in names else spec
            for spec in inputs
        ]
    )
    try:
        yield
    finally:
        signature.inputs = inputs


def _split_inexact_floats(
    rows: pd.DataFrame, missing: dict[str, np.ndarray], positions: np.ndarray
) -> list[np.ndarray]:
    """Split rows so that no integer above 2**53 becomes a float beside a missing one."""
    parts = [positions]
    for name, flags in missing.items():
        values = rows[name].to_numpy()
        if ((values > _LARGEST_EXACT_FLOAT) | (values < -_LARGEST_EXACT_FLOAT)).any():
            parts = [half for part in parts for half in (part[~flags[part]], part[flags[part]])]
    return [part for part in parts if len(part)]


def _no_reasons(size: int) -> pd.Categorical:
    return pd.Categorical([""], categories=pd.Index([""])).take(np.zeros(size, np.intp))


class _Original:
    """The rows of a batch as the model gets them at first, whatever a failed call did to them.

    Args:
        rows: Rows of the batch, with the index 0 to n - 1.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        nested = [name for name in rows.columns if _is_nested(rows[name])]
        self._columns = rows.columns
        self._rows = (rows.drop(columns=nested) if nested else rows).copy()
        self._pickled = {name: pickle.dumps(list(rows[name])) for name in nested}
        self._nested: dict[str, list[Any]] = {}

    def take(self, positions: np.ndarray) -> pd.DataFrame:
        """Return a copy of some rows, with the index 0 to n - 1 as Spark gives it."""
        part = self._rows.iloc[positions].reset_index(drop=True)
        for name, text in self._pickled.items():
            if name not in self._nested:
                self._nested[name] = pickle.loads(text)
            values = np.empty(len(positions), object)
            values[:] = [copy.deepcopy(self._nested[name][position]) for position in positions]
            part[name] = values
        return part[list(self._columns)]


def _is_nested(column: pd.Series) -> bool:
    """Return whether a column holds values that a model can change in place."""
    return isinstance(first_object(column), (dict, list, np.ndarray))


def first_object(column: pd.Series) -> Any:
    """Return the first value of a column of Python objects that is not None, else None."""
    if column.dtype != object:
        return None
    return next((value for value in column if value is not None), None)


def _split_unusual_rows(
    rows: pd.DataFrame, missing: dict[str, np.ndarray], positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into those without and those with a missing or infinite value.

    Such values are the usual reason why a model fails. The rows without them then often need
    one more call, however many they are.
    """
    unusual = _unusual_rows(rows.iloc[positions])
    for flags in missing.values():
        unusual |= flags[positions]
    return positions[~unusual], positions[unusual]


def _unusual_rows(rows: pd.DataFrame) -> np.ndarray:
    unusual = rows.isna().to_numpy().any(axis=1)
    for _, column in rows.select_dtypes(["float32", "float64"]).items():
        unusual |= np.isinf(column.to_numpy())
    return np.asarray(unusual)


def _reason(err: BaseException) -> str:
    try:
        message = str(err)
    except Exception:  # noqa: BLE001 - an error's text is code of the model's library
        message = "an error without a text"
    # Spark takes no text that UTF-8 cannot encode.
    message = message.encode("utf-8", "replace").decode()
    text = " ".join(f"{type(err).__name__}: {message}".split())
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 1] + "…"


def use_one_thread(model: Any) -> None:
    """Set `n_jobs` and its like to 1 in every estimator inside a model.

    Spark already runs one task a core; a model saved with `n_jobs=-1` would start as many
    threads again in each of them. Fitted estimators of an ensemble are not among its
    parameters, so attributes are walked, not `get_params`.
    """
    visited: set[int] = set()
    pending: list[Any] = [getattr(model, "_model_impl", model)]
    while pending:
        item = pending.pop()
        if id(item) in visited:
            continue
        visited.add(id(item))
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend(
                element
                for element in item
                if hasattr(element, "__dict__") or isinstance(element, (list, tuple))
            )
        elif hasattr(item, "__dict__") and not isinstance(item, type):
            is_estimator = hasattr(item, "get_params")
            for name in _THREAD_PARAMETERS:
                if is_estimator and item.__dict__.get(name) not in (None, 1):
                    setattr(item, name, 1)
            library = type(item).__module__.partition(".")[0]
            if is_estimator or library not in _LIBRARIES_WITHOUT_MODELS:
                pending.extend(vars(item).values())
