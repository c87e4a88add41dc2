"""Between a table's columns and a model's signature, both ways: pure functions of plain data.

Types are Spark's own names ("bigint", "decimal(10,2)") and MLflow's ("long", "double").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring.guard import BAD, REASON, UNFIT

PREDICTION = "prediction"

# MLflow type -> Spark types that hold no value it cannot represent. `bigint` is not among
# those for double: above 2**53 neighbours become one number.
_LOSSLESS = {
    "boolean": {"boolean"},
    "integer": {"tinyint", "smallint", "int"},
    "long": {"tinyint", "smallint", "int", "bigint"},
    "float": {"tinyint", "smallint", "float"},
    "double": {"tinyint", "smallint", "int", "float", "double"},
    "string": {"string"},
    "binary": {"binary"},
    "datetime": {"date", "timestamp", "timestamp_ntz"},
}
_SPARK_TYPE = {
    "boolean": "boolean",
    "integer": "int",
    "long": "bigint",
    "float": "float",
    "double": "double",
    "string": "string",
    "binary": "binary",
    "datetime": "timestamp_ntz",
}
# Digits of a decimal that the type gives back unchanged.
_DECIMAL_DIGITS = {"integer": 9, "long": 18, "double": 15}
_DECIMAL = re.compile(r"decimal\((\d+),(-?\d+)\)")
# What pandas' nanoseconds can hold.
_FIRST_TIME, _LAST_TIME = "1677-09-22 00:00:00", "2262-04-11 00:00:00"
_OUTPUT_TYPES = ("boolean", "integer", "long", "float", "double", "string")


@dataclass(frozen=True, kw_only=True)
class ModelColumn:
    """One input column of a model's signature; `type` is MLflow's, or Spark's for a nested one."""

    name: str
    type: str
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output of a model: a scalar, a list, or a list of a fixed `length`."""

    name: str | None
    field: str
    type: str
    list: bool = False
    length: int | None = None


@dataclass(frozen=True, kw_only=True)
class Bound:
    """An input column of the table bound to one of the model.

    `expression` gives the value the model gets; `unfit_when` is true for rows that cannot be
    handed over at all, for which `reason` is written to the quarantine.
    """

    name: str
    column: str
    src_type: str
    type: str
    expression: str
    unfit_when: str | None = None
    reason: str | None = None


def quote(name: str) -> str:
    """Return a column name for use in SQL, dots and backticks and all."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """Return a string literal for use in SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def bind(
    inputs: Sequence[ModelColumn], columns: Mapping[str, str], *, as_json: bool = False
) -> tuple[Bound, ...]:
    """Bind the model's columns to the table's, by name; say every column that cannot be.

    An exact name wins; otherwise upper and lower case are the same, as in Spark. Timestamps
    and dates reach the model as the session's wall time, as `toPandas` gives them.

    Args:
        inputs: The signature's columns.
        columns: The table's columns and Spark types, for example {"dep_delay": "double"}.
        as_json: Rows travel to a model server as JSON, which turns a missing boolean into false.

    Raises:
        ScoringError: A required column is missing, or a type cannot be converted without loss.
    """
    folded = {name.lower(): name for name in columns}
    bound, missing, lossy = [], [], []
    for wanted in inputs:
        column = wanted.name if wanted.name in columns else folded.get(wanted.name.lower())
        if column is None:
            if wanted.required:
                missing.append(f"{wanted.name!r} ({wanted.type})")
            continue
        one = _bind_one(wanted, column, columns[column], as_json)
        if one is None:
            lossy.append(f"{column!r} is {columns[column]}, the model takes {wanted.type}")
        else:
            bound.append(one)
    if missing:
        raise ScoringError(
            f"input table must have the model's columns: missing {', '.join(missing)}"
            f"{'; also ' + '; '.join(lossy) if lossy else ''}; got {list(columns)}"
        )
    if lossy:
        raise ScoringError(
            f"input columns must convert to the model's types without loss: {'; '.join(lossy)}; "
            "cast them in a view, or log the model with a signature of the table's types"
        )
    return tuple(bound)


def _bind_one(wanted: ModelColumn, column: str, src_type: str, as_json: bool) -> Bound | None:
    dst_type = _SPARK_TYPE.get(wanted.type, wanted.type)
    ref = quote(column)
    decimal = _DECIMAL.fullmatch(src_type)
    if decimal:
        digits, scale = int(decimal[1]), int(decimal[2])
        whole = wanted.type in ("integer", "long")
        if digits > _DECIMAL_DIGITS.get(wanted.type, 0) or (whole and scale > 0):
            return None
    elif wanted.type in _LOSSLESS:
        if re.sub(r"^(var)?char\(\d+\)$", "string", src_type) not in _LOSSLESS[wanted.type]:
            return None
    elif src_type != wanted.type:
        return None
    value = ref if src_type == dst_type else f"CAST({ref} AS {dst_type})"
    unfit_when = reason = None
    if wanted.type in ("integer", "long"):
        # pandas has no missing integer: it would turn the whole batch into floats.
        unfit_when = f"{ref} IS NULL"
        reason = f"column {column!r} must not be null: the model takes {_a(wanted.type)}"
        value = f"coalesce({value}, CAST(0 AS {dst_type}))"
    elif wanted.type == "boolean" and as_json:
        unfit_when = f"{ref} IS NULL"
        reason = f"column {column!r} must not be null: with this env_manager it would become false"
    elif wanted.type == "datetime":
        first, last = (f"TIMESTAMP_NTZ'{time}'" for time in (_FIRST_TIME, _LAST_TIME))
        unfit_when = f"{value} NOT BETWEEN {first} AND {last}"
        reason = f"column {column!r} must lie between {_FIRST_TIME} and {_LAST_TIME}"
        value = f"CASE WHEN {value} BETWEEN {first} AND {last} THEN {value} END"
    return Bound(
        name=wanted.name,
        column=column,
        src_type=src_type,
        type=wanted.type,
        expression=value,
        unfit_when=unfit_when,
        reason=reason,
    )


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def unfit(bound: Sequence[Bound]) -> tuple[str | None, tuple[str, ...]]:
    """Return the SQL for a row's unfit code (0: fit) and the reasons by code, from 1."""
    cases = [(one.unfit_when, one.reason) for one in bound if one.unfit_when]
    if not cases:
        return None, ()
    whens = " ".join(f"WHEN {when} THEN {code}" for code, (when, _) in enumerate(cases, 1))
    return f"CASE {whens} ELSE 0 END", tuple(str(reason) for _, reason in cases)


def udf_argument(bound: Sequence[Bound]) -> str:
    """Return the SQL of the one struct that the model gets."""
    fields = [f"{one.expression} AS {quote(one.name)}" for one in bound]
    code, _ = unfit(bound)
    if code:
        fields.append(f"{code} AS {quote(UNFIT)}")
    return f"struct({', '.join(fields)})"


def udf_fields(outputs: Sequence[Output]) -> tuple[tuple[str, str], ...]:
    """Return the names and Spark types of what the guarded model gives for the output table."""
    fields = []
    for output in outputs:
        spark_type = _SPARK_TYPE[output.type]
        if output.length is not None:
            fields += [(f"{output.field}_{i}", spark_type) for i in range(output.length)]
        elif output.list:
            fields.append((output.field, f"array<{spark_type}>"))
        else:
            fields.append((output.field, spark_type))
            if output.type not in ("float", "double"):
                fields.append((f"{output.field}_null", "boolean"))
    return (*fields, (BAD, "boolean"))


# What it gives for the quarantine: a text for each row would slow the other pass down.
REASON_FIELDS = ((BAD, "boolean"), (REASON, "string"))


def prediction(outputs: Sequence[Output], result: str) -> str:
    """Return the SQL of the `prediction` column from the guarded model's `result` struct."""
    values = [_value(output, result) for output in outputs]
    if len(outputs) == 1:
        return values[0]
    pairs = [f"{literal(str(o.name))}, {v}" for o, v in zip(outputs, values, strict=True)]
    return f"named_struct({', '.join(pairs)})"


def _value(output: Output, result: str) -> str:
    floating = output.type in ("float", "double")

    def restored(value: str) -> str:
        # On its way through Arrow a NaN becomes a null, and a float prediction has no other.
        return f"coalesce({value}, CAST('NaN' AS {output.type}))" if floating else value

    field = f"{result}.{output.field}"
    if output.length is not None:
        return f"array({', '.join(restored(f'{field}_{i}') for i in range(output.length))})"
    if output.list:
        return f"transform({field}, x -> {restored('x')})" if floating else field
    return restored(field) if floating else f"IF({field}_null, NULL, {field})"


def check_outputs(outputs: Sequence[Output]) -> None:
    """Refuse predictions that Spark's Python functions cannot return as they are.

    Raises:
        ScoringError: An output is of another type than MLflow's `spark_udf` returns exactly.
    """
    wrong = [f"{o.name or PREDICTION!s} ({o.type})" for o in outputs if o.type not in _OUTPUT_TYPES]
    if wrong:
        raise ScoringError(
            f"model predictions must be of {', '.join(_OUTPUT_TYPES)}, or lists of these: got "
            f"{', '.join(wrong)}; return a string or a number instead"
        )
