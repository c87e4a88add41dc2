"""Compare two sets of scored rows: the rows that a table has, and the rows of another scoring."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F
from pyspark.sql import types as T

from dbx_aml._common.text import sql_identifier
from dbx_aml.scoring.column_binding import PREDICTION
from dbx_aml.scoring.verdicts import can_hash

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_EXAMPLES = 5
_STORED, _REPLAYED = "_dbx_aml_stored", "_dbx_aml_replayed"


@dataclass(frozen=True, kw_only=True)
class RowComparison:
    """Numbers of equal and of other rows.

    Args:
        rows_equal: Rows that both have.
        rows_different: Rows that both have, with another prediction.
        rows_missing: Rows that only the other scoring has.
        rows_more: Rows that only the table has.
        largest_difference: Largest absolute difference of two predictions; None where they are no
            numbers, or where none differs.
        examples: At most 5 rows that are not equal: the columns, "stored" and "replayed", each a
            list of predictions.
    """

    rows_equal: int
    rows_different: int
    rows_missing: int
    rows_more: int
    largest_difference: float | None
    examples: list[dict[str, Any]]


def compare_rows(stored: DataFrame, replayed: DataFrame, columns: Sequence[str]) -> RowComparison:
    """Compare the predictions of two frames, whose rows are known by some columns.

    Rows that are equal in these columns are paired in the order of their predictions.

    Args:
        stored: Rows of the table.
        replayed: Rows of the other scoring.
        columns: Columns that both have beside `prediction`.
    """
    keys = [f"_dbx_aml_key_{number}" for number in range(len(columns))]
    sides = [
        rows.select(
            *(_groupable(rows, name).alias(key) for name, key in zip(columns, keys, strict=True)),
            PREDICTION,
            F.lit(int(rows is stored)).alias(_STORED),
            F.lit(int(rows is replayed)).alias(_REPLAYED),
        )
        for rows in (stored, replayed)
    ]
    counted = (
        sides[0]
        .unionByName(sides[1])
        .groupBy(*keys, PREDICTION)
        .agg(F.sum(_STORED).alias(_STORED), F.sum(_REPLAYED).alias(_REPLAYED))
    )
    grouped = counted.groupBy(*keys).agg(
        F.expr(f"sum(least({_STORED}, {_REPLAYED}))").alias("equal"),
        _surplus(_STORED, _REPLAYED).alias(_STORED),
        _surplus(_REPLAYED, _STORED).alias(_REPLAYED),
    )
    kind = stored.schema[PREDICTION].dataType
    is_number = isinstance(kind, T.NumericType)
    # The difference of two integers may be no integer of their type.
    a, b = (f"CAST({x} AS DECIMAL(20))" if isinstance(kind, T.IntegralType) else x for x in "ab")
    pairs = f"zip_with({_STORED}, {_REPLAYED}, (a, b) -> CAST(abs({a} - {b}) AS DOUBLE))"
    sizes = f"size({_STORED})", f"size({_REPLAYED})"
    totals = grouped.selectExpr(
        "coalesce(sum(equal), 0)",
        f"coalesce(sum(least({', '.join(sizes)})), 0)",
        f"coalesce(sum(greatest({sizes[1]} - {sizes[0]}, 0)), 0)",
        f"coalesce(sum(greatest({sizes[0]} - {sizes[1]}, 0)), 0)",
        f"max(array_max({pairs}))" if is_number else "CAST(NULL AS DOUBLE)",
    ).collect()[0]
    equal, different, missing, more = map(int, totals[:4])
    examples = []
    if different or missing or more:
        unequal = grouped.where(f"{sizes[0]} + {sizes[1]} > 0").limit(_EXAMPLES)
        names = {**dict(zip(keys, columns, strict=True)), _STORED: "stored", _REPLAYED: "replayed"}
        for text in unequal.select(F.to_json(F.struct(*names))).toPandas().iloc[:, 0]:
            row = json.loads(text)
            examples.append({name: row.get(key) for key, name in names.items()})
    return RowComparison(
        rows_equal=equal,
        rows_different=different,
        rows_missing=missing,
        rows_more=more,
        largest_difference=totals[4],
        examples=examples,
    )


def _groupable(rows: DataFrame, name: str) -> Column:
    """Return a column, as text where Spark cannot compare its values, for example maps."""
    column = rows.select(F.col(sql_identifier(name)).alias("value"))
    value = F.col(sql_identifier(name))
    return value if can_hash(column) else F.to_json(F.struct(value.alias("value")))


def _surplus(side: str, other_side: str) -> Column:
    """Return the surplus of one side over the other: its predictions, in order."""
    repeated = f"array_repeat({PREDICTION}, CAST(greatest({side} - {other_side}, 0) AS INT))"
    return F.expr(f"array_sort(flatten(collect_list({repeated})))")
