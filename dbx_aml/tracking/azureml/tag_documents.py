"""Tags that this package keeps on runs in Azure ML, and documents in these tags.

Azure ML has no place for logged models and for some inputs of runs. They are kept in tags of the
run: one call writes all tags, they can be read at once, and any client sees them. A run has 50
tags of 1,000 characters, so documents are JSON, compressed where the JSON is long.

A user who may write to a run may also write its tags. A document counts only if this package could
have written it: its size, its depth and its types are checked by the function that reads it.

Source:
    Microsoft Learn, "Service limits in Azure Machine Learning", seen 2026-11.
"""

import base64
import json
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from dbx_aml._common.chunks import split_chunks
from dbx_aml._common.json_content import parse_json
from dbx_aml._common.text import parse_count

MAX_TAG_LENGTH = 1000

CREATE_ID = "dbx_aml.create_id"
OVERFLOW_COUNT = "dbx_aml.overflow"
HAS_OVERFLOW = "dbx_aml.has_overflow"
HAS_LOGGED_MODELS = "dbx_aml.has_logged_models"
LOGGED_MODEL_PREFIX = "dbx_aml.logged_model."
RUN_INPUTS = "dbx_aml.run_inputs"
PLACEHOLDER_RUN = "dbx_aml.placeholder_run"
_INTERNAL = (
    CREATE_ID,
    OVERFLOW_COUNT,
    HAS_OVERFLOW,
    HAS_LOGGED_MODELS,
    LOGGED_MODEL_PREFIX,
    RUN_INPUTS,
)
_LOGGED_MODEL = re.compile(re.escape(LOGGED_MODEL_PREFIX) + r"[0-9a-f]{8}\.0")
_VALUES = ".values."
_COMPRESSED = "z:"
_CHUNK_LENGTH = 950
_MAX_CHUNKS = 6
_MAX_DOCUMENT_LENGTH = 16 * 2**20
# Function that raises ValueError unless a document has the keys and types of its kind.
CheckDocument = Callable[[Any], None]


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

    Raises:
        MlflowException: The document is too long.
    """
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    content = text.encode("utf-8", "replace")
    if len(content) > _MAX_DOCUMENT_LENGTH:
        raise MlflowException(
            f"document {key!r} of a run must have at most {_MAX_DOCUMENT_LENGTH:,} bytes: got "
            f"{len(content):,}; log fewer parameters, tags or datasets to it",
            INVALID_PARAMETER_VALUE,
        )
    if len(text) > _CHUNK_LENGTH:
        text = _COMPRESSED + base64.b64encode(zlib.compress(content, 9)).decode()
    if len(text) > _CHUNK_LENGTH * _MAX_CHUNKS:
        # One long tag, which goes into the overflow of the run.
        return {f"{key}.0": f"1|{text}"}
    chunks = split_chunks(text, _CHUNK_LENGTH)
    chunks[0] = f"{len(chunks)}|{chunks[0]}"
    return {f"{key}.{number}": chunk for number, chunk in enumerate(chunks)}


def document_in_tags(
    key: str, tags: Mapping[str, str], check: CheckDocument
) -> dict[str, Any] | None:
    """Return the document that tags hold; None if a tag of the document is missing.

    Args:
        key: Name of the tags without their number.
        tags: Tags of a run.
        check: Function that raises ValueError unless the document has the types of its kind.

    Raises:
        ValueError: The tags hold no such document. The message has no part of their text.
    """
    count, bar, first = tags.get(f"{key}.0", "").partition("|")
    if not bar:
        return None
    chunks = [tags.get(f"{key}.{number}") for number in range(1, parse_count(count, _MAX_CHUNKS))]
    if None in chunks:
        return None
    text = "".join([first, *map(str, chunks)])
    if text.startswith(_COMPRESSED):
        text = _decompress(text.removeprefix(_COMPRESSED))
    document: dict[str, Any] = parse_json(text)
    check(document)
    return document


def _decompress(text: str) -> str:
    """Return the text of compressed tags, read up to the most bytes that a document may have."""
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(
            base64.b64decode(text, validate=True), _MAX_DOCUMENT_LENGTH
        ).decode()
        is_complete = decompressor.eof
    except (ValueError, zlib.error):
        is_complete = False
    if not is_complete:
        # Outside of the handler: its error may show the text.
        raise ValueError("it is not compressed as it should be, or is too long")
    return content


def value_key(model_key: str, writer: str) -> str:
    """Return the key of the document with the values that a writer has logged to a model."""
    return f"{model_key}{_VALUES}{writer}"


def value_keys(model_key: str, tags: Mapping[str, str]) -> list[str]:
    """Return the keys of the documents with values of a model among the tags of a run."""
    start = f"{model_key}{_VALUES}"
    return [key.removesuffix(".0") for key in tags if key.startswith(start) and key.endswith(".0")]


def logged_model_keys(tags: Mapping[str, str]) -> list[str]:
    """Return the keys of the documents of the logged models among the tags of a run."""
    return [key.removesuffix(".0") for key in tags if _LOGGED_MODEL.fullmatch(key)]
