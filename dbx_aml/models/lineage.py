"""Tags that say where a run, a logged model or a model version came from.

Every module that writes or reads lineage uses these names: registering and copying a model, the
model registry in Azure ML, the mirror. Unity Catalog refuses some characters in the key of a tag:
its tags have "_" instead, and readers know both spellings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from dbx_aml.link.uris import is_unity_catalog_uri

# Of a mirrored run, a mirrored logged model or a registered version.
SOURCE_RUN_ID = "dbx_aml.source_run_id"

# Of a model version.
SOURCE_MODEL_URI = "dbx_aml.source_model_uri"
SIGNATURE = "dbx_aml.signature"
ARTIFACTS_SHA256 = "dbx_aml.artifacts_sha256"
LOGGED_MODEL_ID = "dbx_aml.logged_model_id"

# Of a model version that was copied from another registry.
SOURCE_REGISTRY = "dbx_aml.source_registry"
SOURCE_CREATED_AT = "dbx_aml.source_created_at"

# Of a mirrored logged model.
SOURCE_LOGGED_MODEL_ID = "dbx_aml.source_logged_model_id"

# Of a mirrored experiment: server and id of the experiment at the source.
SOURCE_EXPERIMENT_ID = "dbx_aml.source_experiment_id"

# Of a mirrored run; of a copied model version SOURCE_URL is the page of its run.
SOURCE_EXPERIMENT = "dbx_aml.source_experiment"
# Digest of the source run as it was mirrored, and the names of the tags that the source run had.
SOURCE_DIGEST = "dbx_aml.source_digest"
SOURCE_TAGS = "dbx_aml.source_tags"
SOURCE_WORKSPACE = "dbx_aml.source_workspace"
SOURCE_URL = "dbx_aml.source_url"
SOURCE_USER = "dbx_aml.source_user"
SOURCE_PARENT_RUN_ID = "dbx_aml.source_parent_run_id"
SOURCE_LIFECYCLE_STAGE = "dbx_aml.source_lifecycle_stage"

# Begin of a tag of the version that was copied: one tag for each copy.
COPY_PREFIX = "dbx_aml.copy."

_VERSION_TAGS = (
    SOURCE_RUN_ID,
    SOURCE_MODEL_URI,
    SIGNATURE,
    ARTIFACTS_SHA256,
    LOGGED_MODEL_ID,
    SOURCE_REGISTRY,
    SOURCE_CREATED_AT,
    SOURCE_URL,
)
_RESERVED_IN_UNITY_CATALOG = re.compile(r"[.,\-=/:]")
# Characters that every registry accepts as the value of a tag.
MAX_TAG_LENGTH = 1000


def version_tags_for(registry_uri: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags of a model version as its registry accepts them.

    Args:
        registry_uri: MLflow registry URI.
        tags: Tags with any keys, for example {"dbx_aml.source_run_id": "4be1..."}.
    """
    if not is_unity_catalog_uri(registry_uri):
        return dict(tags)
    return {_unity_catalog_key(key): text.strip() for key, text in tags.items()}


def read_lineage(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the lineage in the tags of a version by the names of this module.

    Args:
        tags: Tags of a version in any registry.
    """
    lineage = {}
    for name in _VERSION_TAGS:
        text = tags.get(name) or tags.get(_unity_catalog_key(name))
        if text:
            lineage[name] = text
    return lineage


def read_copies(tags: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return registry and model URI of each copy that the tags of a version name."""
    prefixes = (COPY_PREFIX, _unity_catalog_key(COPY_PREFIX))
    copies = [text.rpartition(" ") for key, text in tags.items() if key.startswith(prefixes)]
    return sorted((registry, uri) for registry, _, uri in copies if registry)


def copy_tag(registry_id: str, model_uri: str) -> dict[str, str]:
    """Return the tag of a version that was copied to another registry."""
    name = model_uri.rpartition("/")[0]
    digest = hashlib.sha256(f"{registry_id} {name}".encode()).hexdigest()[:8]
    return {f"{COPY_PREFIX}{digest}": f"{registry_id} {model_uri}"}


def is_lineage_tag(key: str) -> bool:
    """Tell whether a tag of a version was set by this package."""
    return key.startswith(("dbx_aml.", "dbx_aml_"))


def _unity_catalog_key(key: str) -> str:
    return _RESERVED_IN_UNITY_CATALOG.sub("_", key)
