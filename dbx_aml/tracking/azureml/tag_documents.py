"""Tags that this package keeps on runs in Azure ML, and documents in these tags.

Azure ML has no place for logged models and for some inputs of runs. They are kept in tags of the
run: one call writes all tags, they can be read at once, and any client sees them. A run has 50
tags of 1,000 characters, so documents are JSON, compressed where the JSON is long.

Source:
    Microsoft Learn, "Service limits in Azure Machine Learning", seen 2026-11.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

MAX_TAG_LENGTH = 1000

CREATE_ID = "dbx_aml.create_id"
OVERFLOW_COUNT = "dbx_aml.overflow"
HAS_LOGGED_MODELS = "dbx_aml.has_logged_models"
LOGGED_MODEL_PREFIX = "dbx_aml.logged_model."
RUN_INPUTS = "dbx_aml.run_inputs"
PLACEHOLDER_RUN = "dbx_aml.placeholder_run"
_INTERNAL = (CREATE_ID, OVERFLOW_COUNT, HAS_LOGGED_MODELS, LOGGED_MODEL_PREFIX, RUN_INPUTS)
_COMPRESSED = "z:"
_CHUNK_LENGTH = 950
_MAX_CHUNKS = 6


def is_internal_tag(key: str) -> bool:
    """Tell whether a tag belongs to the store; code that uses MLflow does not see such tags."""
    return key.startswith(_INTERNAL)


def document_tags(key: str, document: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags that hold a document, in the order of their numbers.

    Args:
        key: Name of the tags without their number, for example "dbx_aml.run_inputs".
        document: Content that JSON can hold.

    Returns:
        For example {"dbx_aml.run_inputs.0": '1|{"outputs":{}}'}. The first tag holds the number of
        tags, so a tag left over from a longer version is ignored.
    """
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    if len(text) > _CHUNK_LENGTH:
        text = _COMPRESSED + base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    if len(text) > _CHUNK_LENGTH * _MAX_CHUNKS:
        # One long tag, which goes into the overflow of the run.
        return {f"{key}.0": f"1|{text}"}
    chunks = [text[start : start + _CHUNK_LENGTH] for start in range(0, len(text), _CHUNK_LENGTH)]
    chunks[0] = f"{len(chunks)}|{chunks[0]}"
    return {f"{key}.{number}": chunk for number, chunk in enumerate(chunks)}


def document_in_tags(key: str, tags: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the document that tags hold; None if a tag of the document is missing."""
    count, bar, first = tags.get(f"{key}.0", "").partition("|")
    if not bar or not count.isdigit():
        return None
    chunks = [tags.get(f"{key}.{number}") for number in range(1, int(count))]
    if None in chunks:
        return None
    text = "".join([first, *map(str, chunks)])
    if text.startswith(_COMPRESSED):
        text = zlib.decompress(base64.b64decode(text.removeprefix(_COMPRESSED))).decode()
    document: dict[str, Any] = json.loads(text)
    return document


def logged_model_keys(tags: Mapping[str, str]) -> list[str]:
    """Return the keys of the documents of the logged models among the tags of a run."""
    return [
        key.removesuffix(".0")
        for key in tags
        if key.startswith(LOGGED_MODEL_PREFIX) and key.endswith(".0")
    ]
