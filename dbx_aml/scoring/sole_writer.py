"""Find the commits of other writers in an output table that follows its input."""

from __future__ import annotations

from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring.bind import BoundRequest
from dbx_aml.scoring.delta_table import parse_commit_metadata
from dbx_aml.scoring.ledger import LedgerEntry
from dbx_aml.scoring.request import BatchFacts
from dbx_aml.scoring.spark_settings import can_set
from dbx_aml.scoring.table_identity import changing_commits

# Setting that carries a batch's facts into the commit of a merge.
_METADATA_SETTING = "spark.databricks.delta.commitInfo.userMetadata"


def check_sole_writer(
    bound: BoundRequest, previous: LedgerEntry, facts: BatchFacts, *, is_first: bool
) -> None:
    """Refuse an output table that another writer has changed since a batch of the stream.

    Args:
        bound: Bound request.
        previous: Newest batch of the stream.
        facts: Batch that is to be written.
        is_first: Whether no batch of this run is written: an interrupted batch may be left from
            a checkpoint that is lost, and this run merges the same changes again.

    Raises:
        ScoringError: Another writer has changed rows of the output table.
    """
    output = bound.request.output_table
    commits = changing_commits(bound.spark, output, (previous.output_version or 0) + 1)
    for version, operation, text in commits:
        metadata = parse_commit_metadata(text) or {}
        is_own = metadata.get("write_mode") == "follow" and (
            is_first or metadata.get("job") == facts.job
        )
        if is_own or (operation == "MERGE" and not can_set(bound.spark, _METADATA_SETTING)):
            continue
        raise ScoringError(
            "output_table must be written by its stream alone for write_mode 'follow': got "
            f"{output.name!r}, where version {version} ({operation}) is of another writer; restore "
            f"version {previous.output_version}, or pass rescore=True to score all rows again"
        )
