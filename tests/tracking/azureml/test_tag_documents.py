"""Documents in the tags of a run."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dbx_aml.tracking.azureml.tag_documents import (
    MAX_TAG_LENGTH,
    document_in_tags,
    document_tags,
    is_internal_tag,
    logged_model_keys,
)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=30,
)
LONG = {"params": {f"name {number}": str(number**7) for number in range(200)}}


@given(st.dictionaries(st.text(max_size=20), _JSON))
def test_a_document_comes_back_from_tags_as_long_as_a_tag_may_be(document: dict[str, Any]) -> None:
    tags = document_tags("dbx_aml.run_inputs", document)

    assert document_in_tags("dbx_aml.run_inputs", tags) == document
    assert all(len(text) <= MAX_TAG_LENGTH for text in tags.values()) or len(tags) == 1


def test_a_shorter_document_replaces_a_longer_document() -> None:
    tags = document_tags("k", LONG)
    assert len(tags) > 2
    assert document_in_tags("k", tags) == LONG

    tags |= document_tags("k", {"params": {}})

    assert document_in_tags("k", tags) == {"params": {}}


def test_a_document_with_a_missing_tag_is_none() -> None:
    tags = document_tags("k", LONG)
    del tags["k.1"]

    assert document_in_tags("k", tags) is None
    assert document_in_tags("other", tags) is None


def test_only_the_stores_own_tags_are_internal() -> None:
    model_tag = "dbx_aml.logged_model.0a1b2c3d.0"
    internal = ("dbx_aml.create_id", "dbx_aml.overflow", model_tag, "dbx_aml.run_inputs.0")
    assert all(is_internal_tag(key) for key in internal)
    visible = ("dbx_aml.mirror", "dbx_aml.placeholder_run", "team")
    assert not any(is_internal_tag(key) for key in visible)
    assert logged_model_keys({key: "" for key in internal}) == ["dbx_aml.logged_model.0a1b2c3d"]
