"""Model URIs: parsed into parts, or refused with a message that says the fix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbx_aml._common.errors import DbxAmlError, ModelUriError
from dbx_aml.models.model_uri import ModelUri

UNDERSTOOD = {
    "models:/delay/3": ModelUri(kind="version", name="delay", version="3"),
    "models:/delay@champion": ModelUri(kind="alias", name="delay", alias="champion"),
    "models:/main.flights.delay@champion": ModelUri(
        kind="alias", name="main.flights.delay", alias="champion"
    ),
    "models:/main.flights.delay/12": ModelUri(
        kind="version", name="main.flights.delay", version="12"
    ),
    "models:/two words/3": ModelUri(kind="version", name="two words", version="3"),
    "models:/a@b@champion": ModelUri(kind="alias", name="a@b", alias="champion"),
    "models:/m-5f0c12ab": ModelUri(kind="logged_model", model_id="m-5f0c12ab"),
    "models:/m-2b7d4c8e-9f11-3d5a-5f0c12ab": ModelUri(
        kind="logged_model", model_id="m-2b7d4c8e-9f11-3d5a-5f0c12ab"
    ),
    "models:/m-red_owl_x1-5f0c12ab": ModelUri(
        kind="logged_model", model_id="m-red_owl_x1-5f0c12ab"
    ),
    "runs:/4be1/model": ModelUri(kind="run", run_id="4be1", path="model"),
    "runs:/4be1/deep/model": ModelUri(kind="run", run_id="4be1", path="deep/model"),
    "/tmp/model": ModelUri(kind="path", path="/tmp/model"),
    "model": ModelUri(kind="path", path="model"),
    "file:///tmp/model": ModelUri(kind="path", path="file:///tmp/model"),
    "dbfs:/models/delay": ModelUri(kind="path", path="dbfs:/models/delay"),
    "s3://bucket/model": ModelUri(kind="path", path="s3://bucket/model"),
}

REFUSED = {
    "": "model URI must not be empty: got ''; pass 'models:/<name>/3'",
    "models:/iris": (
        "model URI must name a version or an alias: got 'models:/iris'; add '/3' or '@champion'"
    ),
    "models:/iris/latest": (
        "model URI must name a version or an alias, not 'latest', which moves: "
        "got 'models:/iris/latest'; use 'models:/iris/3' or 'models:/iris@champion'"
    ),
    "models:/iris/Production": (
        "model URI must name a version or an alias, not 'Production', which moves: "
        "got 'models:/iris/Production'; use 'models:/iris/3' or 'models:/iris@champion'"
    ),
    "models:/iris/0": (
        "model URI must be 'models:/<name>/<version>': got 'models:/iris/0'; "
        "the version is a whole number from 1"
    ),
    "models:/iris/3/4": (
        "model URI must be 'models:/<name>/<version>': got 'models:/iris/3/4'; "
        "the version is a whole number from 1"
    ),
    "models://profile@databricks/iris/3": (
        "model URI must start with 'models:/' and a name: "
        "got 'models://profile@databricks/iris/3'; say which registry with the registry URI"
    ),
    "runs:/4be1": (
        "model URI must be 'runs:/<run id>/<artifact path>': got 'runs:/4be1'; "
        "the path is the name the model was logged with, often 'model'"
    ),
    "model:/iris/3": (
        "model URI must start with 'models:/', 'runs:/' or be a path: got 'model:/iris/3'"
    ),
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_a_model_uri_is_taken_apart_and_str_gives_it_back(text: str) -> None:
    uri = ModelUri.parse(text)
    assert uri == UNDERSTOOD[text]
    assert str(uri) == text


@pytest.mark.parametrize("text", REFUSED)
def test_a_uri_without_a_fixed_version_is_refused_with_the_next_step(text: str) -> None:
    with pytest.raises(ModelUriError) as caught:
        ModelUri.parse(text)
    assert str(caught.value) == REFUSED[text]


@pytest.mark.parametrize("text", ["models:/", "models:/@champion", "models:/iris@", "models:/ /3"])
def test_a_uri_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(ModelUriError, match=r"^model URI must "):
        ModelUri.parse(text)


def test_a_model_uri_error_is_a_value_error_and_one_of_ours() -> None:
    assert issubclass(ModelUriError, ValueError)
    assert issubclass(ModelUriError, DbxAmlError)


@given(st.text(max_size=40), st.sampled_from(["", "models:/", "runs:/", "models:/m-", "dbfs:/"]))
def test_any_text_gives_itself_back_or_one_of_our_errors(text: str, prefix: str) -> None:
    try:
        uri = ModelUri.parse(prefix + text)
    except ModelUriError:
        return
    assert ModelUri.parse(str(uri)) == uri
    assert str(uri).rstrip("/") == (prefix + text).rstrip("/")
