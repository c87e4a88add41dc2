"""Tags that this package keeps on model versions in Azure ML: aliases, and where a version is from.

An alias is a tag on the version it names; its value is when it was set, in UTC. Moving it sets the
new one, then removes the old one: where two are met, the newer one counts.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from dbx_aml.models.lineage import LOGGED_MODEL_ID

ALIAS = "dbx_aml.alias."
CREATE_ID = "dbx_aml.create_id"


def is_hidden(key: str) -> bool:
    """Tell whether a tag is the store's own, or says what MLflow has a field for."""
    return key.startswith(ALIAS) or key in (LOGGED_MODEL_ID, CREATE_ID)


def timestamp() -> str:
    """Return this moment, so that a later one sorts after it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def aliases_among(versions: Iterable[Any]) -> dict[str, str]:
    """Return which version each alias names.

    Args:
        versions: Of one registered model, with these tags.
    """
    found: dict[str, tuple[str, str]] = {}
    for version in versions:
        for key, text in version.tags.items():
            if key.startswith(ALIAS):
                alias = key.removeprefix(ALIAS)
                found[alias] = max(found.get(alias, ("", "")), (text, str(version.version)))
    return {alias: version for alias, (_, version) in found.items()}
