"""The identity of a batch: the facts that decide its rows and their predictions.

Pure functions of a bound request. The output table is no part of it: the ledger that holds the
batches belongs to the output table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dbx_aml._common.redact import redact_uri
from dbx_aml.scoring import plan

if TYPE_CHECKING:
    from dbx_aml.scoring.bind import BoundRequest
    from dbx_aml.scoring.column_binding import BoundColumn

# What changes from one attempt at a job to the next, though the job is the same.
_CHANGES_BETWEEN_ATTEMPTS = (
    "registry_uri",
    "model_uri",
    "model_content",
    "bound_columns",
    "challenger",
    "segments",
    "input_id",
    "input_data_version",
    "time_zone",
)


def batch_identity(bound: BoundRequest) -> dict[str, Any]:
    """Return the facts that make a batch the same batch, as plain JSON values without secrets.

    A table with an id is known by it and by its folder: its name may be spelled in several ways.
    A copy of a table's folder has the same id, so the folder counts, too.
    """
    request, resolved = bound.request, bound.resolved
    model, table = resolved.model, resolved.input
    bound_columns = bound.model_udf.bound_columns
    is_registered = model.name is not None
    beside: dict[str, Any] = {}
    if resolved.segments is not None:
        beside["segments"] = resolved.segments.uris
    if resolved.challenger is not None:
        beside["challenger"] = {
            "model_uri": resolved.challenger.uri,
            "model_content": resolved.challenger.content,
            "bound_columns": _describe(bound.model_udf.challenger_columns),
        }
    return {
        "registry_uri": redact_uri(resolved.registry_uri).rstrip("/") if is_registered else None,
        "model_uri": model.uri if is_registered else None,
        "model_content": model.content,
        "input_table": table.name if table.location is None else table.location,
        "input_id": table.id,
        "input_data_version": table.data_version,
        "row_filter": request.row_filter,
        "bound_columns": _describe(bound_columns),
        "output_columns": list(resolved.output_columns),
        "key_columns": list(request.key_columns),
        "write_mode": request.write_mode,
        "replace_where": request.replace_where,
        "quarantine_table": resolved.quarantine_name,
        "time_zone": _time_zone(bound),
        "batch_id": request.batch_id,
        **beside,
    }


def _describe(bound_columns: Sequence[BoundColumn]) -> list[str]:
    return [f"{c.name} = {c.column} {c.source_type}" for c in bound_columns]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the facts in which two identities differ, each with its old and its new value.

    For example "row_filter was 'month = 9', is 'month = 10'"; "" for equal identities.
    """
    return "; ".join(
        f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in dict.fromkeys([*new, *old])
        if old.get(name) != new.get(name)
    )


def job_identity(identity: Mapping[str, Any]) -> str:
    """Return a digest of the facts that are the same in each attempt at a job.

    A new version of the model or of the input does not change the digest. It finds the batch that
    an earlier attempt has not finished.
    """
    return plan.batch_id(
        {name: fact for name, fact in identity.items() if name not in _CHANGES_BETWEEN_ATTEMPTS}
    )


def _time_zone(bound: BoundRequest) -> str | None:
    """Return the session's time zone where it may change the predictions or the rows, else None.

    The model sees timestamps as wall time. A filter may compare them with text. UTC has one name
    here: a laptop calls it "UTC", a cluster "Etc/UTC".
    """
    request = bound.request
    types = " ".join(column.source_type for column in bound.model_udf.all_columns)
    has_timestamp = re.search(r"\btimestamp\b", types) is not None
    if not (has_timestamp or request.row_filter or request.replace_where):
        return None
    time_zone = bound.resolved.time_zone
    return "UTC" if plan.is_utc(time_zone) else time_zone
