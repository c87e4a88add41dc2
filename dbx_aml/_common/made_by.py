"""The mark of everything that this package makes in Azure ML, in MLflow and as tables."""

from datetime import UTC, datetime
from importlib.metadata import version

# Tags of a resource, a run or a model version, and properties of a Delta table.
MADE_BY, MADE_AT = "dbx_aml.made_by", "dbx_aml.made_at"


def made_tags() -> dict[str, str]:
    """Return the mark of a new thing: the version of this package, and the time in UTC."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {MADE_BY: f"dbx-aml {version('dbx-aml')}", MADE_AT: now}
