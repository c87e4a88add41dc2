"""Documents in the tags of a run."""

import base64
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from dbx_aml.tracking.azureml.tag_documents import (
    MAX_TAG_LENGTH,
    document_in_tags,
    document_tags,
    is_internal_tag,
    logged_model_keys,
)


def anything(document: object) -> None:
    """Accept every document."""


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=30,
)
LONG = {"params": {f"name {number}": str(number**7) for number in range(200)}}


@given(st.dictionaries(st.text(max_size=20), _JSON))
@pytest.mark.slow
def test_a_document_comes_back_from_tags_as_long_as_a_tag_may_be(document: dict[str, Any]) -> None:
    tags = document_tags("dbx_aml.run_inputs", document)

    assert document_in_tags("dbx_aml.run_inputs", tags, anything) == document
    assert all(len(text) <= MAX_TAG_LENGTH for text in tags.values()) or len(tags) == 1


def test_a_shorter_document_replaces_a_longer_document() -> None:
    tags = document_tags("k", LONG)
    assert len(tags) > 2
    assert document_in_tags("k", tags, anything) == LONG

    tags |= document_tags("k", {"params": {}})

    assert document_in_tags("k", tags, anything) == {"params": {}}


def test_a_document_with_a_missing_tag_is_none() -> None:
    tags = document_tags("k", LONG)
    del tags["k.1"]

    assert document_in_tags("k", tags, anything) is None
    assert document_in_tags("other", tags, anything) is None


def packed(content: bytes) -> str:
    return "1|z:" + base64.b64encode(zlib.compress(content)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "\u00b2|{}",
        "-1|{}",
        "7|{}",
        "1000000000|{}",
        "0x1|{}",
        "1|",
        "1|{",
        "1|secret",
        "1|" + "[" * 200_000,
        '1|{"a":' * 40,
        "1|z:secret",
        "1|z:" + base64.b64encode(b"secret").decode(),
        packed(b"secret")[:-8],
        packed(b"\xff"),
        packed(b"[" * 200_000),
        # A few thousand characters that become 64 MiB.
        packed(b'{"a":"' + b"x" * 2**26 + b'"}'),
    ],
)
def test_tags_that_hold_no_document_are_an_error_without_their_text(text: str) -> None:
    with pytest.raises(ValueError) as error:
        document_in_tags("k", {"k.0": text}, anything)

    assert "secret" not in str(error.value)
    assert len(str(error.value)) < 100


def test_a_document_counts_only_if_its_check_accepts_it() -> None:
    def refuse(document: object) -> None:
        raise ValueError(f"got {document}")

    with pytest.raises(ValueError, match=r"got \{'a': 1\}"):
        document_in_tags("k", document_tags("k", {"a": 1}), refuse)


def test_a_document_is_not_written_longer_than_it_is_read() -> None:
    with pytest.raises(MlflowException, match=r"'k' of a run must have at most 16,777,216 bytes"):
        document_tags("k", {"a": "x" * 2**24})


def test_half_a_character_is_a_question_mark_in_a_long_document() -> None:
    tags = document_tags("k", {"a": "\udc80" * 1000})

    assert document_in_tags("k", tags, anything) == {"a": "?" * 1000}


def test_only_keys_that_a_model_can_have_are_keys_of_models() -> None:
    keys = ("0a1b2c3d", "0a1b2c3", "0A1B2C3D", "0a1b2c3d.1", "../../..", "\x1b[2J0a1b2")
    tags = {f"dbx_aml.logged_model.{key}.0": "" for key in keys}

    assert logged_model_keys(tags) == ["dbx_aml.logged_model.0a1b2c3d"]


def test_only_the_stores_own_tags_are_internal() -> None:
    model_tag = "dbx_aml.logged_model.0a1b2c3d.0"
    internal = ("dbx_aml.create_id", "dbx_aml.overflow", model_tag, "dbx_aml.run_inputs.0")
    assert all(is_internal_tag(key) for key in internal)
    visible = ("dbx_aml.mirror", "dbx_aml.placeholder_run", "team")
    assert not any(is_internal_tag(key) for key in visible)
    assert logged_model_keys({key: "" for key in internal}) == ["dbx_aml.logged_model.0a1b2c3d"]
