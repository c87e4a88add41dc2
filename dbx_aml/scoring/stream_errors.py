"""Errors of a stream over a Delta table in one line, with the way out."""

from __future__ import annotations

import json
import re

from dbx_aml._common import errors
from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring.request import ScoringRequest
from dbx_aml.scoring.spark_errors import spark_error_line

_START_AGAIN = {
    "incremental": "pass a new checkpoint_location and a new output_table, or use write_mode "
    "'merge'",
    "follow": "pass rescore=True to score all rows of version {version} again",
}
# Text in an error of Delta's stream -> the fault of the input table. The first match counts.
# Source: Delta's `delta-error-classes.json` and `DeltaErrors`, 2026-11.
_INPUT_PROBLEMS = (
    (
        "DELTA_SOURCE_TABLE_IGNORE_CHANGES|DELTA_SOURCE_IGNORE_DELETE",
        "must only be appended to",
        "where rows were changed or deleted",
    ),
    (
        "DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE",
        "must be the table that the checkpoint was made for",
        "which was dropped and made again, or is another table",
    ),
    (
        "FAILED_READ_FILE.(FILE_NOT_EXIST|DBR_FILE_NOT_EXIST)|DELTA_FILE_NOT_FOUND"
        "|FileNotFoundException",
        "must have the files of the versions that the checkpoint has not scored",
        "where VACUUM or a person deleted some of them",
    ),
    (
        "DELTA_MISSING_CHANGE_DATA|DELTA_CHANGE_DATA_FEED_INCOMPATIBLE",
        "must have its change feed in each version that is not scored",
        "whose delta.enableChangeDataFeed was off for some of them",
    ),
    (
        "DELTA_LOG_FILE_NOT_FOUND|DELTA_MISSING_FILES_UNEXPECTED_VERSION|DELTA_VERSION_NOT_FOUND"
        "|DELTA_VERSIONS_NOT_CONTIGUOUS|DELTA_TRUNCATED_TRANSACTION_LOG|failOnDataLoss",
        "must have the versions that the checkpoint has not scored",
        "whose log no longer holds some of them (see delta.logRetentionDuration)",
    ),
    ("DELTA_SCHEMA_NOT_SET", "must exist", "which was dropped"),
    (
        "DELTA_STREAMING_|DELTA_SCHEMA_CHANGED|DELTA_SCHEMA_CHANGE_SINCE",
        "must keep the columns that the checkpoint has read",
        "",
    ),
)


# A checkpoint that two jobs begin at the same moment. Source: Spark's `error-conditions.json`.
_IN_USE = "CONCURRENT|STATE_STORE_CHECKPOINT_LOCATION_NOT_EMPTY"


def checkpoint_in_use_error(request: ScoringRequest) -> ScoringError:
    """Return the error of a job whose checkpoint another job is using."""
    return ScoringError(
        f"checkpoint_location must be used by one job at a time: got "
        f"{request.checkpoint!r}, which another job is using; wait for it to end"
    )


def stream_error(err: Exception, request: ScoringRequest, version: int | None) -> ScoringError:
    """Return a `ScoringError` for the error of a stream, with the text of the callback's error.

    Args:
        err: Error of Spark.
        request: Request of the stream.
        version: Newest version of the input table.
    """
    text = str(err)
    cause = spark_error_line(err)
    if re.search(_IN_USE, text) or "Concurrent" in cause:
        return checkpoint_in_use_error(request)
    if re.search(r"data source: `?kafka", text):
        return ScoringError(
            "Spark session must have Spark's Kafka source for source 'kafka': got none; start it "
            "with dbx_aml.local_spark(kafka=True), or add the package spark-sql-kafka-0-10"
        )
    for pattern, rule, problem in _INPUT_PROBLEMS:
        if re.search(pattern, text):
            return ScoringError(
                f"input table for write_mode {request.write_mode!r} {rule}: got "
                f"{request.input_table.name!r}, {problem or _changed_columns(text)}; "
                f"{_START_AGAIN[request.write_mode].format(version=version)}"
            )
    callback_errors = re.findall(r"dbx_aml\._common\.errors\.(\w+): (.*)", text)
    if callback_errors:
        name, message = callback_errors[-1]
        error_class = getattr(errors, name, ScoringError)
        if issubclass(error_class, ScoringError):
            return error_class(message)
    return ScoringError(f"stream must run to its end: got {request.input_table.name!r}; {cause}")


def _changed_columns(text: str) -> str:
    """Return how the columns differ in an error about two schemas of the input table.

    For example "where column 'x' was renamed to 'z'". Delta writes both schemas into its error,
    as JSON for a table with column mapping, else as a tree.
    """
    documents = re.findall(r"schema: (\{.*?\})\.(?:\s|$)", text)[:2]
    try:
        old, new = (_names_and_types_by_id(document) for document in documents)
    except ValueError:
        trees = re.findall(r"schema: root\n((?: \|--.*\n)+)", text)[:2]
        if len(trees) < 2:
            return "where a column was renamed, dropped or changed its type"
        # Here the newer schema comes first.
        new, old = ({n: (n, t) for n, t in re.findall(r"^ \|-- (.*): (\S+) ", tree, re.M)}
                    for tree in trees)  # fmt: skip
    changes = []
    for key, (name, data_type) in old.items():
        if key not in new:
            changes.append(f"column {name!r} was dropped")
        elif new[key][0] != name:
            changes.append(f"column {name!r} was renamed to {new[key][0]!r}")
        elif new[key][1] != data_type:
            changes.append(f"column {name!r} was {data_type} and is {new[key][1]}")
    return f"where {', '.join(changes)}" if changes else "where the columns changed"


def _names_and_types_by_id(document: str) -> dict[str, tuple[str, str]]:
    """Return name and type of each column in a schema's JSON by the name in the table's files."""
    columns = {}
    for field in json.loads(document)["fields"]:
        physical_name = field["metadata"].get("delta.columnMapping.physicalName", field["name"])
        data_type = field["type"] if isinstance(field["type"], str) else field["type"]["type"]
        columns[physical_name] = field["name"], data_type
    return columns
