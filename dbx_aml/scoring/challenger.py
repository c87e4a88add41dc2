"""The challenger of a model: predictions of the same rows in the same pass, and their agreement."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pyspark.sql import types as T

from dbx_aml._common.errors import ArgumentError, SchemaMismatchError
from dbx_aml.scoring.column_binding import (
    CHALLENGER,
    PREDICTION,
    check_outputs,
    converts_exactly,
    prediction_expression,
    spark_type_of_output,
)
from dbx_aml.scoring.guard import REASON
from dbx_aml.scoring.guard_several import CHALLENGER_FIELD

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from dbx_aml.scoring.column_binding import ModelOutput
    from dbx_aml.scoring.pinned_model import PinnedModel

# Bins of the population stability index, each with the same share of the model's predictions.
_BINS = 10
# A bin without rows would make the index infinite.
_MIN_SHARE = 1e-4


def check_challenger(model: PinnedModel, challenger: PinnedModel) -> None:
    """Refuse a challenger that is the model itself, or predicts something else.

    Raises:
        ArgumentError: Both are one version.
        SchemaMismatchError: A prediction of the challenger is not one of the model's type.
    """
    if challenger.content == model.content:
        raise ArgumentError(
            f"challenger_uri must name another model than model_uri: got {challenger.uri!r} for "
            "both"
        )
    check_outputs(challenger.outputs)
    pairs = list(zip(challenger.outputs, model.outputs, strict=False))
    has_same_names = len(pairs) == 1 or [c.name for c, _ in pairs] == [m.name for _, m in pairs]
    if (
        len(challenger.outputs) != len(model.outputs)
        or not has_same_names
        or not all(converts_exactly(*pair) for pair in pairs)
    ):
        raise SchemaMismatchError(
            "challenger must predict values of the model's type: got "
            f"{_describe(challenger.outputs)} of {challenger.uri!r}, where {model.uri!r} predicts "
            f"{_describe(model.outputs)}; log the challenger with such a signature"
        )


def _describe(outputs: Sequence[ModelOutput]) -> str:
    return ", ".join(f"{output.name} {spark_type_of_output(output)}" for output in outputs)


def outputs_beside(challenger: PinnedModel) -> tuple[ModelOutput, ...]:
    """Return the outputs of a challenger with the names of their fields beside the model's."""
    return tuple(replace(o, field=CHALLENGER_FIELD + o.field) for o in challenger.outputs)


def challenger_expression(model: PinnedModel, challenger: PinnedModel, result: str) -> str:
    """Return the SQL of the column `_challenger`, from the guard's result.

    Shape: struct<model_version int, prediction <type of the model's>, error string>. For a row
        that the challenger cannot score, the prediction is null and `error` has the reason.
    """
    version = challenger.version
    version = version if version and version.isdigit() else "NULL"
    types = [spark_type_of_output(output) for output in model.outputs]
    kind = types[0]
    if len(types) > 1:
        fields = zip(model.outputs, types, strict=True)
        kind = "struct<" + ", ".join(f"`{output.name}`: {text}" for output, text in fields) + ">"
    error = f"{result}.{CHALLENGER_FIELD}{REASON}"
    prediction = prediction_expression(outputs_beside(challenger), result)
    return (
        f"named_struct('model_version', CAST({version} AS INT), "
        f"'prediction', IF({error} = '', CAST({prediction} AS {kind}), NULL), "
        f"'error', nullif({error}, ''))"
    )


def measure_agreement(rows: DataFrame, model_uri: str) -> str:
    """Return how far the predictions of a model and its challenger agree, as JSON.

    Args:
        rows: Rows of the output table, of one batch.
        model_uri: URI of the challenger.

    Returns:
        `model_uri`, `rows_failed` (rows that the challenger cannot score), `rows_compared`,
        `share_equal`, and for numbers `mean_difference` (challenger minus model),
        `mean_absolute_difference`, `largest_difference` and `population_stability_index` of the
        two predictions. A number without rows is null.
    """
    is_number = isinstance(rows.schema[PREDICTION].dataType, T.NumericType)
    pairs = rows.selectExpr(
        f"{PREDICTION} AS a", f"{CHALLENGER}.prediction AS b", f"{CHALLENGER}.error AS error"
    )
    compared_pairs = pairs.where("error IS NULL")
    difference = "CAST(b AS DOUBLE) - CAST(a AS DOUBLE)" if is_number else "CAST(NULL AS DOUBLE)"
    shares = ", ".join(str(i / _BINS) for i in range(1, _BINS))
    edges = f"percentile_approx(a, array({shares}))" if is_number else "NULL"
    failed, compared, equal, *differences, edges_of_bins = pairs.selectExpr(
        "count_if(error IS NOT NULL)",
        "count_if(error IS NULL)",
        "count_if(error IS NULL AND a <=> b)",
        f"avg(IF(error IS NULL, {difference}, NULL))",
        f"avg(IF(error IS NULL, abs({difference}), NULL))",
        f"max(IF(error IS NULL, abs({difference}), NULL))",
        edges,
    ).collect()[0]
    agreement: dict[str, Any] = {
        "model_uri": model_uri,
        "rows_failed": failed,
        "rows_compared": compared,
        "share_equal": equal / compared if compared else None,
    }
    if is_number:
        names = ("mean_difference", "mean_absolute_difference", "largest_difference")
        agreement.update(zip(names, map(_finite, differences), strict=True))
        agreement["population_stability_index"] = _index_of_both(
            compared_pairs, edges_of_bins, compared
        )
    return json.dumps(agreement)


def _finite(number: float | None) -> float | str | None:
    """Return a number as JSON has it: NaN and infinities are texts there."""
    return number if number is None or math.isfinite(number) else str(number)


def _index_of_both(pairs: DataFrame, edges: Sequence[float] | None, rows: int) -> float | None:
    """Return the population stability index of two columns of numbers, a and b."""
    if not edges or not rows:
        return None
    # The last bin is the one of NaN, which is above every number.
    limits = [*sorted({edge for edge in edges if math.isfinite(edge)}), math.inf]
    # Rows up to each edge: one comparison for each, where a CASE by bin takes nine times as long.
    counts = pairs.selectExpr(
        *(f"count_if({column} <= CAST('{limit}' AS DOUBLE))" for column in "ab" for limit in limits)
    ).collect()[0]
    before, now = (
        [(above - below) / rows for below, above in pairwise([0, *part, rows])]
        for part in (counts[: len(limits)], counts[len(limits) :])
    )
    return population_stability_index(before, now)


def population_stability_index(shares: Sequence[float], new_shares: Sequence[float]) -> float:
    """Return the population stability index; 0 for equal shares, above 0.2 for a large change.

    Args:
        shares: Share of each bin in the rows.
        new_shares: Share of each bin in the rows that are compared.
    """
    total = 0.0
    for old, new in zip(shares, new_shares, strict=True):
        old, new = max(old, _MIN_SHARE), max(new, _MIN_SHARE)
        total += (new - old) * math.log(new / old)
    return total
