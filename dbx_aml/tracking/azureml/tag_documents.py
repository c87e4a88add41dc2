"""Tags that this package keeps on runs in Azure ML, and documents in them.

What MLflow knows and Azure ML has no place for goes into tags of the run: they are written in one
call, are there at once, and any client sees them. A run has 50 tags of 1,000 characters, so
documents are JSON, packed where they are long.

Source:
    Microsoft Learn, "Service limits in Azure Machine Learning", seen 2026-11.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

LONGEST_TAG = 1000

CREATE_ID = "dbx_aml.create_id"
OVERFLOW = "dbx_aml.overflow"
MODELS = "dbx_aml.has_logged_models"
MODEL = "dbx_aml.logged_model."
LINKS = "dbx_aml.run_inputs"
CARRIER = "dbx_aml.placeholder_run"
_HIDDEN = (CREATE_ID, OVERFLOW, MODELS, MODEL, LINKS)
_PACKED = "z:"
_CHUNK = 950
_MOST_CHUNKS = 6


def is_hidden(key: str) -> bool:
    """Tell whether a tag is the store's own, which code that uses MLflow does not expect."""
    return key.startswith(_HIDDEN)


def document_tags(key: str, document: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags that hold a document, in the order of their numbers.

    Args:
        key: What the tags are called before their number, for example "dbx_aml.run_inputs".
        document: JSON.

    Returns:
        For example {"dbx_aml.run_inputs.0": '1|{"outputs":{}}'}. The first tag holds the number of
        tags, so a tag left over from a longer version is ignored.
    """
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    if len(text) > _CHUNK:
        text = _PACKED + base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    if len(text) > _CHUNK * _MOST_CHUNKS:
        # Longer than a tag may be, so it goes where all such values go.
        return {f"{key}.0": f"1|{text}"}
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    chunks[0] = f"{len(chunks)}|{chunks[0]}"
    return {f"{key}.{number}": chunk for number, chunk in enumerate(chunks)}


def document_in(key: str, tags: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the document that tags hold; None where there is none, or not all of it."""
    count, bar, first = tags.get(f"{key}.0", "").partition("|")
    if not bar or not count.isdigit():
        return None
    rest = [tags.get(f"{key}.{number}") for number in range(1, int(count))]
    if None in rest:
        return None
    text = "".join([first, *map(str, rest)])
    if text.startswith(_PACKED):
        text = zlib.decompress(base64.b64decode(text.removeprefix(_PACKED))).decode()
    document: dict[str, Any] = json.loads(text)
    return document


def model_keys(tags: Mapping[str, str]) -> list[str]:
    """Return the keys of the documents of the logged models among a run's tags."""
    return [key[:-2] for key in tags if key.startswith(MODEL) and key.endswith(".0")]
