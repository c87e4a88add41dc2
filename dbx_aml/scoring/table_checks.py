"""Check the tables of a request before the first write: their kinds, places and columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from dbx_aml._common.databricks_runtime import running_version
from dbx_aml._common.errors import (
    ArgumentError,
    SchemaMismatchError,
    ScoringError,
    TableNotFoundError,
)
from dbx_aml.scoring.column_binding import QUARANTINE
from dbx_aml.scoring.delta_table import Table, column_types
from dbx_aml.scoring.kafka import KafkaTopic
from dbx_aml.scoring.request import ScoringRequest
from dbx_aml.scoring.row_filter import unstable_parts
from dbx_aml.scoring.table_identity import (
    TableIdentity,
    identify_table,
    locate_table,
    normalize_location,
    read_versions,
    resolve_name,
    split_name,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_CONSTRAINT = "delta.constraints."
_CHANGE_FEED = "delta.enableChangeDataFeed"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Table or folder that an argument names.

    Args:
        argument: Name of the argument.
        given: Table or folder as the caller gave it.
        name: Name of a table with catalog and schema; None for a folder.
        location: Folder; None where only the catalog knows it.
    """

    argument: str
    given: str
    name: str | None
    location: str | None


def check_tables(
    spark: SparkSession, request: ScoringRequest, rows: DataFrame, *, with_versions: bool
) -> tuple[TableIdentity, TableIdentity | None, TableIdentity | None]:
    """Return what the input, the output and the quarantine are; refuse what cannot be scored.

    Args:
        spark: Session that looks up the tables.
        request: Request whose tables are checked.
        rows: Rows of the input that pass the filter.
        with_versions: Whether the versions of the input are read.

    Raises:
        TableNotFoundError: The input table does not exist.
        ArgumentError: Two arguments name one place, or a table is no Delta table.
        SchemaMismatchError: The input has a column of the quarantine, or the quarantine cannot
            take the input's rows.
        ScoringError: A batch_id is needed to name the rows.
    """
    arguments: dict[str, Table | KafkaTopic] = {
        "input_table": request.input_table,
        "output_table": request.output_table,
        "quarantine_table": request.quarantine_table,
    }
    ledger = request.output_table.sibling("batches")

    def identify(argument: str) -> TableIdentity | None:
        table = arguments[argument]
        if isinstance(table, KafkaTopic):
            return table.identity
        identity = identify_table(spark, table)
        if identity is not None and with_versions and argument == "input_table":
            return read_versions(spark, table, identity)
        return identity

    # Small queries that mostly wait: they run at the same time.
    with ThreadPoolExecutor(len(arguments) + 1) as pool:
        ledger_location = pool.submit(locate_table, spark, ledger)
        identities = dict(zip(arguments, pool.map(identify, arguments), strict=True))
    source = identities["input_table"]
    if source is None:
        raise TableNotFoundError(
            f"input table must exist and be readable: got {request.input_table.name!r}"
        )
    if request.is_stream and not _can_stream(source, request.write_mode):
        databricks = ""
        if source.kind == "file" and request.write_mode == "incremental":
            databricks = ", or Databricks, where Auto Loader reads new files"
        raise ScoringError(
            f"input table must be a Delta table for write_mode {request.write_mode!r}: got "
            f"{request.input_table.name!r}, which has no versions; use 'append' with a batch_id"
            f"{databricks}"
        )
    if request.write_mode == "follow":
        _check_can_follow(spark, request, rows, source)
    ledger_place = Place(
        argument="the ledger of output_table",
        given=ledger.name,
        name=resolve_name(spark, ledger),
        location=ledger_location.result(),
    )
    check_places([*_places(spark, request, arguments, identities), ledger_place])
    for argument, table in (
        ("output_table", request.output_table),
        ("quarantine_table", request.quarantine_table),
    ):
        _check_is_delta(argument, table, identities[argument])
    quarantine = identities["quarantine_table"]
    _check_quarantine(spark, request, rows, quarantine)
    if not request.is_stream and not request.batch_id:
        _check_rows_have_a_name(spark, request, rows, source)
    return source, identities["output_table"], quarantine


def _can_stream(source: TableIdentity, write_mode: str) -> bool:
    """Return whether Spark reads an input as a stream; files only by Databricks' Auto Loader."""
    if source.kind == "file":
        return write_mode == "incremental" and running_version() is not None
    return source.kind in ("delta", "topic")


def _places(
    spark: SparkSession,
    request: ScoringRequest,
    arguments: Mapping[str, Table | KafkaTopic],
    identities: dict[str, TableIdentity | None],
) -> Iterator[Place]:
    for argument, table in arguments.items():
        if isinstance(table, KafkaTopic):
            continue
        identity = identities[argument]
        location = normalize_location(table.path) if table.path else None
        yield Place(
            argument=argument,
            given=table.name,
            name=identity.name if identity else resolve_name(spark, table),
            location=identity.location if identity else location,
        )
    if request.is_stream:
        yield Place(
            argument="checkpoint_location",
            given=request.checkpoint,
            name=None,
            location=normalize_location(request.checkpoint),
        )


def check_places(places: Sequence[Place]) -> None:
    """Refuse two arguments that name one place, and a place inside the folder of a second place.

    Raises:
        ArgumentError: Two of the places are the same, or one is inside the other.
    """
    for first, second in combinations(places, 2):
        has_one_name = first.name is not None and first.name == second.name
        has_one_location = first.location is not None and first.location == second.location
        if has_one_name or has_one_location:
            next_step = "name another place"
            if (first.argument, second.argument) == ("input_table", "quarantine_table"):
                next_step = (
                    f"to score its rows again, pass a view of it without the column {QUARANTINE} "
                    "as input_table, and another quarantine_table"
                )
            raise ArgumentError(
                f"{second.argument} must not be {first.argument}: got {second.given!r} and "
                f"{first.given!r}, which are one place; {next_step}"
            )
        for inner, outer in ((first, second), (second, first)):
            if _is_inside(inner, outer):
                raise ArgumentError(
                    f"{inner.argument} must not be inside the folder of {outer.argument}: got "
                    f"{inner.location!r} in {outer.location!r}; use a folder beside it"
                )


def _is_inside(inner: Place, outer: Place) -> bool:
    folder = f"{outer.location}/"
    if outer.location is None or not (inner.location or "").startswith(folder):
        return False
    # Delta leaves alone what begins with "_" in a table's folder: checkpoints are kept there.
    first_folder = str(inner.location)[len(folder) :].partition("/")[0]
    is_ignored_by_delta = first_folder.startswith("_") and first_folder != "_delta_log"
    return not (inner.argument == "checkpoint_location" and is_ignored_by_delta)


def _check_is_delta(argument: str, table: Table, identity: TableIdentity | None) -> None:
    if identity is not None and identity.kind != "delta":
        kind = "no Delta table" if identity.kind == "other" else f"a {identity.kind}"
        raise ArgumentError(
            f"{argument} must be a Delta table: got {table.name!r}, which is {kind}; "
            "use another name"
        )


def _check_quarantine(
    spark: SparkSession, request: ScoringRequest, rows: DataFrame, identity: TableIdentity | None
) -> None:
    """Refuse a quarantine whose columns or constraints keep out rows of the input."""
    reserved_names = [name for name in rows.columns if name.lower() == QUARANTINE]
    if reserved_names:
        raise SchemaMismatchError(
            f"input_table must leave out the name of the quarantine's own column: got "
            f"{reserved_names}; pass a view of it without this column"
        )
    if identity is None:
        return
    table = request.quarantine_table
    constraints = [key for key in identity.properties if key.startswith(_CONSTRAINT)]
    new_types = {name.lower(): kind for name, kind in column_types(rows).items()}
    is_nullable = {field.name.lower(): field.nullable for field in rows.schema.fields}
    differences = [f"it has the CHECK {key.removeprefix(_CONSTRAINT)!r}" for key in constraints]
    for field in table.read(spark).schema.fields:
        name, old_type = field.name.lower(), field.dataType.simpleString()
        if name == QUARANTINE:
            if not old_type.startswith("struct<"):
                differences.append(f"{field.name!r} is {old_type}, not a struct")
            continue
        if new_types.get(name, old_type) != old_type:
            differences.append(f"{field.name!r} is {old_type}, not {new_types[name]}")
        if not field.nullable and is_nullable.get(name, True):
            differences.append(f"{field.name!r} is NOT NULL")
    if differences:
        raise SchemaMismatchError(
            f"quarantine_table must take each input row as it is: got {table.name!r}, where "
            f"{'; '.join(differences)}; use another quarantine_table, or alter this one"
        )


def _check_rows_have_a_name(
    spark: SparkSession, request: ScoringRequest, rows: DataFrame, source: TableIdentity
) -> None:
    """Refuse rows that table, version and filter do not name: they need a batch_id."""
    given = request.input_table.name
    advice = "pass one that names these rows, for example their date"
    if source.data_version is None:
        raise ScoringError(
            f"batch_id must be given for an input without versions: got {given!r}; {advice}"
        )
    if request.write_mode == "append" and not source.is_data_version_certain:
        raise ScoringError(
            "batch_id must be given where the input's history no longer holds the commit of its "
            f"newest rows: got {given!r}, whose history begins with version "
            f"{source.data_version}; {advice}"
        )
    parts = _unstable_filter_parts(spark, request, rows)
    if parts:
        raise ScoringError(
            "batch_id must be given where row_filter may select other rows another time: got "
            f"{', '.join(parts)} in {request.row_filter!r}; {advice}"
        )


def _unstable_filter_parts(
    spark: SparkSession, request: ScoringRequest, rows: DataFrame
) -> list[str]:
    """Return what in the row filter may select other rows of the same input another time."""
    if not request.row_filter:
        return []
    table = request.input_table
    name = "input" if table.path else split_name(table.name)[-1]
    return unstable_parts(spark, request.row_filter, rows, name)


def _check_can_follow(
    spark: SparkSession, request: ScoringRequest, rows: DataFrame, source: TableIdentity
) -> None:
    """Refuse an input without a change feed, and a filter that lets unchanged rows in or out."""
    name = request.input_table.name
    if source.properties.get(_CHANGE_FEED, "").lower() != "true":
        raise ScoringError(
            f"input table must have a change feed for write_mode 'follow': got {name!r} without "
            f"one; run ALTER TABLE {name} SET TBLPROPERTIES ({_CHANGE_FEED} = true), which counts "
            "for the changes from then on"
        )
    parts = _unstable_filter_parts(spark, request, rows)
    if parts:
        raise ScoringError(
            "row_filter must select the same rows at any time for write_mode 'follow': got "
            f"{', '.join(parts)} in {request.row_filter!r}; compare columns with constants"
        )
