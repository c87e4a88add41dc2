"""The mark of everything that this package makes in Azure ML, in MLflow and as tables."""

from datetime import UTC, datetime
from importlib.metadata import version

# Tags of a resource, a run or a model version, and properties of a Delta table.
CREATED_BY_TAG, CREATED_AT_TAG = "dbx_aml.made_by", "dbx_aml.made_at"


def creation_tags() -> dict[str, str]:
    """Return the tags of a new resource: the version of this package, and the time in UTC."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {CREATED_BY_TAG: f"dbx-aml {version('dbx-aml')}", CREATED_AT_TAG: now}
