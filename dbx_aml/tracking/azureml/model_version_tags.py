"""Tags that this package keeps on model versions in Azure ML: aliases, and the creating request.

An alias is a tag on the version that it names; the value of the tag is the time at which the alias
was set, in UTC. Moving an alias sets the new tag first and removes the old tag then. If two
versions carry the tag of one alias, the tag with the later time counts.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from dbx_aml.models.lineage import LOGGED_MODEL_ID

ALIAS_PREFIX = "dbx_aml.alias."
CREATE_ID = "dbx_aml.create_id"


def is_internal_tag(key: str) -> bool:
    """Tell whether a tag belongs to the store, or repeats a field that MLflow has."""
    return key.startswith(ALIAS_PREFIX) or key in (LOGGED_MODEL_ID, CREATE_ID)


def timestamp() -> str:
    """Return the current time as text that sorts by time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def versions_by_alias(versions: Iterable[Any]) -> dict[str, str]:
    """Return the version number that each alias names.

    Args:
        versions: Versions of one registered model, with their tags.
    """
    newest: dict[str, tuple[str, str]] = {}
    for version in versions:
        for key, text in version.tags.items():
            if key.startswith(ALIAS_PREFIX):
                alias = key.removeprefix(ALIAS_PREFIX)
                newest[alias] = max(newest.get(alias, ("", "")), (text, str(version.version)))
    return {alias: version for alias, (_, version) in newest.items()}
