import json
from types import SimpleNamespace

import pytest

from dbx_aml._common.errors import NoScorableRowError, ScoringError
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.stream_errors import stream_error

REQUEST = SimpleNamespace(input_table=Table("t"), checkpoint="/c", write_mode="incremental")
WAY_OUT = "; pass a new checkpoint_location and a new output_table, or use write_mode 'merge'"


def line(text):
    return str(stream_error(ScoringError(text), REQUEST, 7))


def mapped_schema(**names):
    """Return a schema's JSON whose columns have the physical names `names` has as its keys."""
    fields = [
        {
            "name": name,
            "type": "double",
            "metadata": {"delta.columnMapping.physicalName": f"col-{physical_name}"},
        }
        for physical_name, name in names.items()
    ]
    return json.dumps({"type": "struct", "fields": fields}, separators=(",", ":"))


def test_a_renamed_and_a_dropped_column_are_named():
    old, new = mapped_schema(a="x", b="y", c="z"), mapped_schema(a="w", c="z")
    assert line(
        "[STREAM_FAILED] terminated with exception: "
        "[DELTA_STREAMING_INCOMPATIBLE_SCHEMA_CHANGE_USE_SCHEMA_LOG] Streaming read is not "
        f"supported\nRead schema: {old}. Incompatible data schema: {new}. SQLSTATE: 42"
    ) == (
        "input table for write_mode 'incremental' must keep the columns that the checkpoint "
        "has read: got 't', where column 'x' was renamed to 'w', column 'y' was dropped" + WAY_OUT
    )


def test_a_column_of_another_type_is_named_with_both_types():
    assert "where column 'x' was double and is string" in line(
        "[DELTA_SCHEMA_CHANGED_WITH_VERSION] Detected schema change in version 0:\n"
        "streaming source schema: root\n |-- id: long (nullable = true)\n"
        " |-- x: string (nullable = true)\n\n\n"
        "data file schema: root\n |-- id: long (nullable = true)\n"
        " |-- x: double (nullable = true)\n\n\nPlease try restarting the query."
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE] x", "which was dropped and made again"),
        ("[DELTA_SOURCE_TABLE_IGNORE_CHANGES] x", "where rows were changed or deleted"),
        ("[FAILED_READ_FILE.FILE_NOT_EXIST] x", "where VACUUM or a person deleted some of them"),
        (
            "[DELTA_LOG_FILE_NOT_FOUND_FOR_STREAMING_SOURCE] x",
            "whose log no longer holds some of them",
        ),
        ("[DELTA_SCHEMA_NOT_SET] x", "which was dropped"),
        (
            "[DELTA_STREAMING_SCHEMA_EVOLUTION] x",
            "where a column was renamed, dropped or changed its type",
        ),
    ],
)
def test_a_source_that_a_stream_cannot_read_on_is_one_line_with_the_way_out(text, problem):
    message = line(f"[STREAM_FAILED] Query [id = 1] terminated with exception: {text}\nstack")
    assert message.startswith("input table for write_mode 'incremental' must ")
    assert f"got 't', {problem}" in message
    assert message.endswith(WAY_OUT)
    assert "\n" not in message


def test_an_error_of_the_callback_keeps_its_class_and_its_text():
    err = stream_error(
        ScoringError("stack\ndbx_aml._common.errors.NoScorableRowError: model must score\nstack"),
        REQUEST,
        7,
    )
    assert isinstance(err, NoScorableRowError)
    assert str(err) == "model must score"


def test_a_checkpoint_that_another_job_uses_is_named():
    assert line("[CONCURRENT_STREAM_LOG_UPDATE] x").startswith(
        "checkpoint_location must be used by one job at a time: got '/c'"
    )


@pytest.mark.parametrize(
    "text",
    [
        "[CONCURRENT_STREAM_LOG_UPDATE] Concurrent update to the log",
        "[STATE_STORE_CHECKPOINT_LOCATION_NOT_EMPTY] The checkpoint location file:/c/offsets "
        "should be empty on batch 0",
    ],
)
def test_a_checkpoint_that_two_jobs_use_at_once_is_named(text):
    assert line(f"[STREAM_FAILED] Query terminated with exception: {text}") == (
        "checkpoint_location must be used by one job at a time: got '/c', which another job is "
        "using; wait for it to end"
    )


def test_a_feed_that_is_cut_off_names_the_version_that_is_left():
    request = SimpleNamespace(**{**vars(REQUEST), "write_mode": "follow"})
    text = "[FAILED_READ_FILE.FILE_NOT_EXIST] x"
    assert str(stream_error(ScoringError(text), request, 7)) == (
        "input table for write_mode 'follow' must have the files of the versions that the "
        "checkpoint has not scored: got 't', where VACUUM or a person deleted some of them; pass "
        "rescore=True to score all rows of version 7 again"
    )
