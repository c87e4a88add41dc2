"""Secrets that are kept out of messages and files."""

import pytest

from dbx_aml._common.errors import LinkError
from dbx_aml._common.redact import (
    environment_secrets,
    has_secret,
    is_secret_name,
    redact,
    redact_uri,
    refuse_secrets,
)


@pytest.mark.parametrize(
    "secret",
    [
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbmEifQ.c2ln",
        "dapi" + "0123456789abcdef" * 2,
        "abc8Q~" + "aB3_.~-x" * 4,
    ],
)
def test_tokens_are_replaced(secret: str) -> None:
    assert redact(f"refused {secret}, try again") == "refused ***, try again"
    assert has_secret(secret)


def test_keys_signatures_and_logins_are_replaced_and_the_rest_stays() -> None:
    assert (
        redact("https://ana:pw@host/x?a=1&sig=abc%2F&b=2") == "https://***@host/x?a=1&sig=***&b=2"
    )
    assert redact("AccountName=a;AccountKey=abc==;X=y") == "AccountName=a;AccountKey=***;X=y"
    plain = "https://host/path?sv=2024 and models:/iris@champion"
    assert redact(plain) == plain
    assert not has_secret(plain)


def test_known_secrets_are_replaced_unless_they_are_too_short_to_be_one() -> None:
    assert redact("got correct-horse!", ["correct-horse"]) == "got ***!"
    assert redact("got it", ["it"]) == "got it"


@pytest.mark.parametrize(
    ("uri", "redacted"),
    [
        ("https://ana:pw@host:5000/path?token=abc#x", "https://host:5000/path"),
        ("databricks://profile", "databricks://profile"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("databricks-uc", "databricks-uc"),
        ("/tmp/mlruns", "/tmp/mlruns"),
        ("http://[broken", "***"),
    ],
)
def test_a_uri_is_shown_without_login_and_query(uri: str, redacted: str) -> None:
    assert redact_uri(uri) == redacted


def test_secrets_of_the_environment_go_by_the_names_of_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "correct-horse")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token")
    assert "correct-horse" in environment_secrets()
    assert "/var/run/token" not in environment_secrets()
    assert is_secret_name("STORAGE_ACCOUNT_KEY")
    assert not is_secret_name("KEYBOARD")
    assert not is_secret_name("DBX_AML_CLIENT_SECRET")


def test_a_file_of_references_must_not_hold_the_secret_itself() -> None:
    refuse_secrets({"dbx_aml": {"client_secret": {"scope": "ml", "key": "sp"}}}, "config.json")
    with pytest.raises(LinkError, match=r"config\.json .*'client_secret'") as caught:
        refuse_secrets({"dbx_aml": {"client_secret": "correct-horse"}}, "config.json")
    assert "correct-horse" not in str(caught.value)
