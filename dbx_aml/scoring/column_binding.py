"""Match a table's columns with a model's signature: pure functions of plain data.

Types are Spark's own names ("bigint", "decimal(10,2)") and MLflow's ("long", "double").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from dbx_aml._common.errors import SchemaMismatchError
from dbx_aml._common.text import sql_identifier, sql_literal
from dbx_aml.scoring.guard import MISSING, REASON, UNSCORABLE

# Columns that scoring adds to the output table and to the quarantine table.
PREDICTION = "prediction"
SCORING = "_scoring"
QUARANTINE = "_quarantine"
CHALLENGER = "_challenger"

# MLflow type -> Spark types all of whose values it can represent. `bigint` does not convert to
# double: above 2**53 two neighbouring integers become one number.
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
# Digits of a decimal that the MLflow type represents exactly.
_DECIMAL_DIGITS = {"integer": 9, "long": 18, "double": 15}
_DECIMAL = re.compile(r"decimal\((\d+),(-?\d+)\)")
# Range of pandas' nanosecond timestamps.
_MIN_TIME, _MAX_TIME = "1677-09-22 00:00:00", "2262-04-11 00:00:00"
_TIME_RANGE = f"TIMESTAMP_NTZ'{_MIN_TIME}' AND TIMESTAMP_NTZ'{_MAX_TIME}'"
_OUTPUT_TYPES = ("boolean", "integer", "long", "float", "double", "string")


@dataclass(frozen=True, kw_only=True)
class ModelColumn:
    """Input column of a model's signature.

    Args:
        name: Name of the column.
        type: MLflow's type; for a nested column Spark's.
        required: Whether the model needs the column.
    """

    name: str
    type: str
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class ModelOutput:
    """Output of a model: a scalar, a list, or a list of a fixed length.

    Args:
        name: Name in the signature.
        field: Name of the field that carries the output through Spark.
        type: MLflow's type, of each element for a list.
        is_list: Whether a prediction is a list.
        length: Length of each list; None for a scalar and for lists of any length.
        required: Whether each prediction has the output; a missing one is null.
    """

    name: str | None
    field: str
    type: str
    is_list: bool = False
    length: int | None = None
    # Models of one type may differ in it.
    required: bool = dataclass_field(default=True, compare=False)


@dataclass(frozen=True, kw_only=True)
class BoundColumn:
    """Column of the input table that a column of the model is read from.

    Args:
        name: Name of the model's column.
        column: Name of the table's column.
        source_type: Spark type in the table.
        type: Type in the model's signature.
        expression: SQL of the value that the model gets.
        missing_when: SQL condition of the rows in which an optional integer is missing.
        unscorable_when: SQL condition of the rows that the model cannot get at all.
        reason: Text for the quarantine table where the condition is true.
    """

    name: str
    column: str
    source_type: str
    type: str
    expression: str
    missing_when: str | None = None
    unscorable_when: str | None = None
    reason: str | None = None


def bind_columns(
    model_columns: Sequence[ModelColumn], columns: Mapping[str, str]
) -> tuple[BoundColumn, ...]:
    """Bind the model's columns to the table's, by name.

    An exact name wins; otherwise upper and lower case are the same, as in Spark. A column of the
    table goes to one column of the model. Timestamps and dates reach the model as the session's
    wall time, as in `toPandas`.

    Args:
        model_columns: Input columns of the signature.
        columns: Columns of the table and their Spark types, for example {"dep_delay": "double"}.

    Raises:
        SchemaMismatchError: Required columns are missing, or types do not convert without loss;
            the message names all of them.
    """
    columns_by_name = _match_names([column.name for column in model_columns], list(columns))
    bound_columns, missing, lossy = [], [], []
    for model_column in model_columns:
        name = model_column.name
        column = columns_by_name.get(name)
        if column is None:
            if model_column.required:
                missing.append(f"{name!r} ({model_column.type})")
            continue
        bound_column = _bind_column(model_column, column, columns[column])
        if bound_column is None:
            lossy.append(f"{column!r} is {columns[column]}, the model takes {model_column.type}")
        else:
            bound_columns.append(bound_column)
    if missing:
        raise SchemaMismatchError(
            f"input table must have the model's columns: missing {', '.join(missing)}"
            f"{'; also ' + '; '.join(lossy) if lossy else ''}; got {list(columns)}"
        )
    if lossy:
        raise SchemaMismatchError(
            f"input columns must convert to the model's types without loss: {'; '.join(lossy)}; "
            "cast them in a view, or log the model with a signature of the table's types"
        )
    return tuple(bound_columns)


def spark_type_of(column: ModelColumn) -> str:
    """Return the Spark type of the values that a column of the model takes."""
    return _SPARK_TYPE.get(column.type, column.type)


def _match_names(names: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Return the table's column for each of the model's names that has exactly one.

    Where several names or several columns differ only in upper and lower case, only exact names
    match: any other choice would be a guess.
    """
    columns_by_name = {name: name for name in names if name in columns}
    inexact_names = _group_by_lower_case(name for name in names if name not in columns)
    free_columns = _group_by_lower_case(name for name in columns if name not in names)
    for lower_case, group in inexact_names.items():
        candidates = free_columns.get(lower_case, [])
        if len(group) == len(candidates) == 1:
            columns_by_name[group[0]] = candidates[0]
    return columns_by_name


def _group_by_lower_case(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.lower(), []).append(name)
    return groups


def _bind_column(model_column: ModelColumn, column: str, source_type: str) -> BoundColumn | None:
    """Return the bound column, or None where its type does not convert without loss."""
    model_type, spark_type = model_column.type, spark_type_of(model_column)
    if not _is_lossless(source_type, model_type):
        return None
    identifier = sql_identifier(column)
    value = identifier if source_type == spark_type else f"CAST({identifier} AS {spark_type})"
    missing_when = unscorable_when = reason = None
    if model_type in ("integer", "long"):
        # pandas has no missing integer: one null would turn all integers of a batch into floats.
        # The guard turns these integers into floats of the same value.
        if model_column.required:
            unscorable_when = f"{identifier} IS NULL"
            reason = (
                f"column {column!r} must not be null: the model takes {_with_article(model_type)}"
            )
        else:
            missing_when = f"{identifier} IS NULL"
        value = f"coalesce({value}, CAST(0 AS {spark_type}))"
    elif model_type == "datetime":
        unscorable_when = f"{value} NOT BETWEEN {_TIME_RANGE}"
        reason = f"column {column!r} must lie between {_MIN_TIME} and {_MAX_TIME}"
        value = f"CASE WHEN {value} BETWEEN {_TIME_RANGE} THEN {value} END"
    elif "<" in model_type:
        conditions = list(_nested_conditions(model_type, identifier))
        if conditions:
            unscorable_when = " OR ".join(condition for condition, _ in conditions)
            rules = dict.fromkeys(rule for _, rule in conditions)
            reason = f"column {column!r} must hold {' and '.join(rules)}"
            value = f"CASE WHEN {unscorable_when} THEN NULL ELSE {value} END"
    return BoundColumn(
        name=model_column.name,
        column=column,
        source_type=source_type,
        type=model_type,
        expression=value,
        missing_when=missing_when,
        unscorable_when=unscorable_when,
        reason=reason,
    )


def _is_lossless(source_type: str, model_type: str) -> bool:
    """Return whether every value of a Spark type can be represented in a model's type."""
    decimal = _DECIMAL.fullmatch(source_type)
    if decimal:
        digits, scale = int(decimal[1]), int(decimal[2])
        is_integer = model_type in ("integer", "long")
        return digits <= _DECIMAL_DIGITS.get(model_type, 0) and not (is_integer and scale > 0)
    if model_type in _LOSSLESS:
        return re.sub(r"^(var)?char\(\d+\)$", "string", source_type) in _LOSSLESS[model_type]
    return source_type == model_type


def _nested_conditions(data_type: str, value: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield SQL conditions of nested values that would reach the model as others, and the rules.

    A null in a list becomes the text 'None' among texts, and a float among integers; among floats
    it is NaN, as in a column. A time out of pandas' range ends the query.

    Args:
        data_type: Spark type, for example "array<struct<at:timestamp>>".
        value: SQL of the value.
        depth: Number of lists around the value.
    """
    kind, _, inner = data_type.removesuffix(">").partition("<")
    element = f"element_{depth}"
    if kind == "array":
        if inner not in ("float", "double"):
            yield f"exists({value}, {element} -> {element} IS NULL)", "no null in a list"
        for condition, rule in _nested_conditions(inner, element, depth + 1):
            yield f"exists({value}, {element} -> {condition})", rule
    elif kind == "map":
        values = f"map_values({value})"
        for condition, rule in _nested_conditions(_split_types(inner)[1], element, depth + 1):
            yield f"exists({values}, {element} -> {condition})", rule
    elif kind == "struct":
        for text in _split_types(inner):
            name, _, field_type = text.partition(":")
            yield from _nested_conditions(field_type, f"{value}.{sql_identifier(name)}", depth)
    elif kind in _LOSSLESS["datetime"]:
        rule = f"only times between {_MIN_TIME} and {_MAX_TIME}"
        yield f"CAST({value} AS timestamp_ntz) NOT BETWEEN {_TIME_RANGE}", rule


def _split_types(text: str) -> list[str]:
    """Split "string,array<map<string,int>>" at the commas that stand outside of brackets."""
    parts, level = [""], 0
    for character in text:
        level += (character in "<(") - (character in ">)")
        if character == "," and level == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def unscorable(bound_columns: Sequence[BoundColumn]) -> tuple[str | None, tuple[str, ...]]:
    """Return the SQL for a row's code (0: the model can get it), and the reasons by code from 1."""
    cases = [
        (column.unscorable_when, column.reason)
        for column in bound_columns
        if column.unscorable_when
    ]
    if not cases:
        return None, ()
    whens = " ".join(f"WHEN {when} THEN {code}" for code, (when, _) in enumerate(cases, 1))
    return f"CASE {whens} ELSE 0 END", tuple(str(reason) for _, reason in cases)


def udf_columns(bound_columns: Sequence[BoundColumn]) -> dict[str, str]:
    """Return the columns that the guarded model gets, in order, and their SQL."""
    columns = {column.name: column.expression for column in bound_columns}
    for column in bound_columns:
        if column.missing_when:
            columns[MISSING + column.name] = column.missing_when
    code, _ = unscorable(bound_columns)
    if code:
        columns[UNSCORABLE] = code
    return columns


def udf_fields(outputs: Sequence[ModelOutput]) -> tuple[tuple[str, str], ...]:
    """Return names and Spark types of the guard's fields: the predictions, and the reason.

    The reason is "" for a row that the model scores.
    """
    fields = []
    for output in outputs:
        spark_type = _SPARK_TYPE[output.type]
        if output.length is not None:
            fields += [(f"{output.field}_{i}", spark_type) for i in range(output.length)]
        elif output.is_list:
            fields.append((output.field, f"array<{spark_type}>"))
        else:
            fields.append((output.field, spark_type))
            if output.type not in ("float", "double"):
                fields.append((f"{output.field}_null", "boolean"))
    return (*fields, (REASON, "string"))


def prediction_expression(outputs: Sequence[ModelOutput], result: str) -> str:
    """Return the SQL of the `prediction` column, from the guard's `result` struct."""
    values = [_output_value(output, result) for output in outputs]
    if len(outputs) == 1:
        return values[0]
    fields = (
        f"{sql_literal(str(output.name))}, {value}"
        for output, value in zip(outputs, values, strict=True)
    )
    return f"named_struct({', '.join(fields)})"


def spark_type_of_output(output: ModelOutput) -> str:
    """Return the Spark type of an output's value in the `prediction` column."""
    is_list = output.is_list or output.length is not None
    spark_type = _SPARK_TYPE[output.type]
    return f"array<{spark_type}>" if is_list else spark_type


def converts_exactly(output: ModelOutput, other: ModelOutput) -> bool:
    """Return whether each value of an output is a value of another output, too."""
    shapes = [(o.is_list or o.length is not None, o.length) for o in (output, other)]
    return shapes[0] == shapes[1] and _is_lossless(_SPARK_TYPE[output.type], other.type)


def _output_value(output: ModelOutput, result: str) -> str:
    is_float = output.type in ("float", "double")

    def with_nan(value: str) -> str:
        # Arrow turns NaN into null, and the guard returns no other null in a float field.
        return f"coalesce({value}, CAST('NaN' AS {output.type}))" if is_float else value

    field = f"{result}.{output.field}"
    if output.length is not None:
        return f"array({', '.join(with_nan(f'{field}_{i}') for i in range(output.length))})"
    if output.is_list:
        return f"transform({field}, x -> {with_nan('x')})" if is_float else field
    return with_nan(field) if is_float else f"IF({field}_null, NULL, {field})"


def check_outputs(outputs: Sequence[ModelOutput]) -> None:
    """Refuse predictions that Spark's Python functions cannot return exactly.

    Raises:
        SchemaMismatchError: An output has a type that MLflow's `spark_udf` does not return.
    """
    unsupported = [
        f"{output.name or PREDICTION} ({output.type})"
        for output in outputs
        if output.type not in _OUTPUT_TYPES
    ]
    if unsupported:
        raise SchemaMismatchError(
            f"model predictions must be of {', '.join(_OUTPUT_TYPES)}, or lists of these: got "
            f"{', '.join(unsupported)}; return a string or a number instead"
        )
