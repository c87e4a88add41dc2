"""What to do with which rows, as plain data that travels to where a stream runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring import plan
from dbx_aml.scoring.column_binding import PREDICTION
from dbx_aml.scoring.request import Arguments

SCORING = "_scoring"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to do with rows."""

    model_uri: str
    tracking_uri: str = field(repr=False)  # either may hold a password
    registry_uri: str = field(repr=False)
    input_table: str
    output_table: str
    quarantine_table: str
    row_filter: str | None
    output_columns: tuple[str, ...]
    key_columns: tuple[str, ...]
    write_mode: str
    replace_where: str | None
    max_quarantined_rows: plan.Tolerance
    env_manager: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One set of rows: its id, Delta's transaction for it, and the version it was read from."""

    id: str
    app_id: str
    app_version: int
    input_version: int | None


def recipe_of(
    given: Arguments,
    model_uri: str,
    tracking_uri: str | None,
    registry_uri: str | None,
    input_columns: Sequence[str],
) -> Recipe:
    """Return the recipe of a job for an input table.

    Args:
        given: What the job was given.
        model_uri: Pinned.
        tracking_uri: MLflow's; None as MLflow resolves it.
        registry_uri: MLflow's; None as MLflow resolves it.
        input_columns: The table's.

    Raises:
        ScoringError: Columns are named that the table does not have, or that scoring adds.
    """
    import mlflow

    columns = given.output_columns or tuple(input_columns)
    for name, wanted in (("output_columns", columns), ("key_columns", given.key_columns)):
        unknown = [column for column in wanted if column not in input_columns]
        if unknown:
            raise ScoringError(
                f"{name} must be input columns: got {unknown}; the input has {input_columns}"
            )
    taken = [name for name in columns if name.lower() in (PREDICTION, SCORING)]
    if taken:
        raise ScoringError(
            f"output_columns must leave room for what scoring adds: got {taken}; choose the "
            "others in output_columns, or rename it in a view"
        )
    left_out = [key for key in given.key_columns if key not in columns]
    if left_out:
        raise ScoringError(
            f"output_columns must hold the key_columns: missing {left_out}; add them"
        )
    return Recipe(
        model_uri=model_uri,
        tracking_uri=tracking_uri or mlflow.get_tracking_uri(),
        registry_uri=registry_uri or mlflow.get_registry_uri(),
        input_table=given.input_table.name,
        output_table=given.output_table.name,
        quarantine_table=given.quarantine.name,
        row_filter=given.row_filter,
        output_columns=columns,
        key_columns=given.key_columns,
        write_mode=given.write_mode,
        replace_where=given.replace_where,
        max_quarantined_rows=given.max_quarantined_rows,
        env_manager=given.env_manager,
    )
