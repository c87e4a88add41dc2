"""Quality of the predictions of each window, from labels that come later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pyspark.sql import functions as F

from dbx_aml._common.errors import ArgumentError, MonitoringError, TableNotFoundError
from dbx_aml._common.text import sql_identifier
from dbx_aml.monitoring.profile import ProfileKey
from dbx_aml.monitoring.windows import TableHistory, read_history
from dbx_aml.scoring.column_binding import CHALLENGER, PREDICTION
from dbx_aml.scoring.delta_table import Table, column_types
from dbx_aml.scoring.table_identity import identify_table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

ProblemType = Literal["classification", "regression"]

# Columns of the profile table, in the names of Databricks.
REGRESSION_METRICS = (
    "mean_average_error",
    "root_mean_squared_error",
    "mean_squared_error",
    "r2_score",
    "mean_absolute_percentage_error",
)
CLASSIFICATION_METRICS = ("accuracy_score", "precision", "recall", "f1_score")
QUALITY_METRICS = (*REGRESSION_METRICS, *CLASSIFICATION_METRICS)
# Value of `column_name` of a row about the predictions of the challenger.
CHALLENGER_ROW = ":challenger"
CHALLENGER_PREDICTION = f"{CHALLENGER}.prediction"
_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class LabelColumn:
    """The column of the labels.

    Args:
        name: Column of the labels.
        table: Table of the labels; None where the scored table has the column.
        key: Column of both tables that identifies a row; None without a table.
        problem_type: Kind of the model. None: text and boolean labels are classes, other labels are
            numbers.
    """

    name: str
    table: str | None = None
    key: str | None = None
    problem_type: ProblemType | None = None

    def __post_init__(self) -> None:
        if (self.table is None) != (self.key is None):
            raise ArgumentError(
                f"label_table and key must be given together: got {self.table!r} and {self.key!r}; "
                "key is a column of the scored table and of label_table, for example 'id'"
            )
        if self.problem_type not in (None, "classification", "regression"):
            raise ArgumentError(
                f"problem_type must be 'classification' or 'regression': got {self.problem_type!r}"
            )


class Labels:
    """The labels of a scored table.

    Args:
        spark: Session.
        column: Column of the labels.
        rows: Rows of the scored table.

    Raises:
        ArgumentError: A column does not exist.
        TableNotFoundError: The table of the labels does not exist.
    """

    def __init__(self, spark: SparkSession, column: LabelColumn, rows: DataFrame) -> None:
        self._column = column
        scored_types = column_types(rows)
        label_types = scored_types
        source = ""
        self.has_challenger = CHALLENGER in scored_types
        self._rows: DataFrame | None = None
        self._history = TableHistory(0, 0)
        if column.table is not None:
            table = Table(column.table)
            identity = identify_table(spark, table)
            if identity is None:
                raise TableNotFoundError(
                    f"label_table must exist and be readable: got {column.table!r}; name the table "
                    "of the labels"
                )
            # The versions of a table that was dropped and made again start again.
            source = f", of {table.name} {identity.id or ''} by {column.key}"
            self._rows = table.read(spark)
            self._history = read_history(spark, table)
            label_types = column_types(self._rows)
            _check_column("key", column.key, scored_types)
            _check_column("key", column.key, label_types)
        _check_column("label", column.name, label_types)
        _check_column("prediction", PREDICTION, scored_types)
        is_class = label_types[column.name] in ("string", "boolean")
        self.problem_type: ProblemType = column.problem_type or (
            "classification" if is_class else "regression"
        )
        self.name = f"{column.name}, {self.problem_type}{source}"

    @property
    def version(self) -> int | None:
        """Version of the table of the labels; None where it has no versions."""
        return self._history.version

    def is_new_for(self, row: Mapping[str, Any]) -> bool:
        """Return whether labels may have come or changed since a row of the profile table.

        Args:
            row: Row of a whole window.
        """
        if row["dbx_aml_labels"] != self.name:
            return True
        version = row["dbx_aml_label_version"]
        if self._rows is None or (version is not None and version == self.version):
            return False
        is_complete = row["dbx_aml_labeled_rows"] == row["count"]
        return not is_complete or version is None or version < self._history.rewritten_version

    def check_keys(self) -> None:
        """Raise an error for keys with several labels.

        Raises:
            MonitoringError: A key has several labels; the message has 5 examples.
        """
        if self._rows is None or self._column.key is None:
            return
        key = F.col(sql_identifier(self._column.key)).alias("key")
        counts = self._rows.select(key).where("key IS NOT NULL").groupBy("key").count()
        found = counts.where("count > 1").orderBy("key").limit(_EXAMPLES).collect()
        if found:
            examples = ", ".join(f"{row['key']} ({row['count']} times)" for row in found)
            raise MonitoringError(
                f"label_table must have each key once: got {self._column.key} {examples} in "
                f"{self._column.table}; remove the labels that do not count"
            )

    def compute_quality(
        self,
        rows: DataFrame,
        window: Column,
        slice_by: Column | None,
        prediction: str = sql_identifier(PREDICTION),
    ) -> dict[ProfileKey, dict[str, Any]]:
        """Return the quality of the predictions, by window and slice.

        Args:
            rows: Scored rows of the windows.
            window: Start of a row's window.
            slice_by: Value of a row's slice; None without slices.
            prediction: SQL of the prediction of a row.
        """
        scored = rows.select(
            window.cast("bigint").alias("window"),
            (F.lit(None) if slice_by is None else slice_by).cast("string").alias("slice"),
            F.expr(prediction).alias("prediction"),
            F.col(sql_identifier(self._column.key or self._column.name)).alias("key"),
        )
        label = F.col(sql_identifier(self._column.name)).alias("label")
        if self._rows is None:
            labeled = scored.withColumnRenamed("key", "label")
        else:
            key = F.col(sql_identifier(self._column.key or "")).alias("key")
            labeled = scored.join(self._rows.select(key, label), "key")
        if self.problem_type == "regression":
            return _regression(labeled)
        return _classification(labeled)


def _check_column(argument: str, name: str | None, types: Mapping[str, str]) -> None:
    if name not in types:
        raise ArgumentError(
            f"{argument} must be a column of the table: got {name!r}; the table has "
            f"{', '.join(types)}"
        )


def _regression(labeled: DataFrame) -> dict[ProfileKey, dict[str, Any]]:
    numbers = labeled.selectExpr(
        "window", "slice", "CAST(label AS DOUBLE) AS label",
        "CAST(prediction AS DOUBLE) - CAST(label AS DOUBLE) AS error",
    ).where(F.abs("error") < float("inf"))  # fmt: skip
    found = (
        numbers.rollup("window", "slice")
        .agg(
            F.grouping_id().alias("level"),
            F.count(F.lit(1)).alias("rows"),
            F.avg(F.abs("error")).alias("mae"),
            F.avg(F.col("error") * F.col("error")).alias("mse"),
            F.var_pop("label").alias("variance"),
            F.avg(F.expr("CASE WHEN label <> 0 THEN abs(error / label) END")).alias("mape"),
        )
        .where("level < 3 AND (level = 1 OR slice IS NOT NULL)")
        .collect()
    )
    return {
        ProfileKey(row.window, row.slice): {
            "dbx_aml_labeled_rows": row.rows,
            "mean_average_error": row.mae,
            "mean_squared_error": row.mse,
            "root_mean_squared_error": row.mse**0.5,
            "r2_score": 1 - row.mse / row.variance if row.variance else None,
            "mean_absolute_percentage_error": row.mape,
        }
        for row in found
    }


def _classification(labeled: DataFrame) -> dict[ProfileKey, dict[str, Any]]:
    types = column_types(labeled)
    counts = (
        labeled.selectExpr(
            "window",
            "slice",
            f"{_class_text('prediction', types['prediction'], types['label'])} AS prediction",
            f"{_class_text('label', types['label'], types['prediction'])} AS label",
        )
        .where("label IS NOT NULL AND prediction IS NOT NULL")
        .groupBy("window", "slice", "prediction", "label")
        .count()
        .collect()
    )
    confusions: dict[ProfileKey, dict[tuple[str, str], int]] = {}
    for row in counts:
        for key in {ProfileKey(row.window, None), ProfileKey(row.window, row.slice)}:
            confusion = confusions.setdefault(key, {})
            pair = row.prediction, row.label
            confusion[pair] = confusion.get(pair, 0) + row["count"]
    return {key: class_metrics(confusion) for key, confusion in confusions.items()}


def _class_text(name: str, data_type: str, other_type: str) -> str:
    """Return SQL of a class as text: 1 and 1.0 are one class, and so are true and 1."""
    if data_type == "boolean" and other_type not in ("boolean", "string"):
        name = f"CAST({name} AS INT)"
    if not data_type.startswith(("float", "double", "decimal")):
        return f"CAST({name} AS STRING)"
    # NaN is no label. Larger numbers are no classes, and have no text of a bigint.
    return (
        f"CASE WHEN {name} % 1 = 0 AND abs({name}) < 1e15 THEN CAST(CAST({name} AS BIGINT) AS "
        f"STRING) WHEN NOT isnan({name}) THEN CAST({name} AS STRING) END"
    )


def class_metrics(confusion: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """Return the metrics of predicted classes.

    Args:
        confusion: Rows of each pair of prediction and label.
    """
    rows = sum(confusion.values())
    classes = sorted({name for pair in confusion for name in pair})
    predicted = {name: _total(confusion, 0, name) for name in classes}
    labeled = {name: _total(confusion, 1, name) for name in classes}
    right = {name: confusion.get((name, name), 0) for name in classes}
    precision = {name: _ratio(right[name], predicted[name]) for name in classes}
    recall = {name: _ratio(right[name], labeled[name]) for name in classes}
    f1 = {name: _ratio(2 * right[name], predicted[name] + labeled[name]) for name in classes}
    return {
        "dbx_aml_labeled_rows": rows,
        "accuracy_score": sum(right.values()) / rows,
        "confusion_matrix": [
            {"prediction": prediction, "label": label, "count": count}
            for (prediction, label), count in sorted(confusion.items())
        ],
        "precision": _averages(precision, labeled),
        "recall": _averages(recall, labeled),
        "f1_score": _averages(f1, labeled),
    }


def _total(confusion: Mapping[tuple[str, str], int], position: int, name: str) -> int:
    return sum(count for pair, count in confusion.items() if pair[position] == name)


def _ratio(count: int, rows: int) -> float:
    return count / rows if rows else 0.0


def _averages(values: Mapping[str, float], labeled: Mapping[str, int]) -> dict[str, Any]:
    """Return a metric of each class, its mean, and its mean weighted by the labels."""
    rows = sum(labeled.values())
    return {
        "one_vs_all": dict(values),
        "macro": sum(values.values()) / len(values),
        "weighted": sum(value * labeled[name] for name, value in values.items()) / rows,
    }


def quality_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the quality of a row of the profile table as numbers, by name."""
    numbers = {name: row.get(name) for name in (*REGRESSION_METRICS, "accuracy_score")}
    for name in CLASSIFICATION_METRICS[1:]:
        value = row.get(name)
        numbers[name] = None if value is None else value["weighted"]
    return {name: value for name, value in numbers.items() if value is not None}
