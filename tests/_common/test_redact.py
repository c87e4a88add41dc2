"""Secrets that are kept out of messages and files."""

import io
import json
import logging
from collections.abc import Iterator
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dbx_aml import Link
from dbx_aml._common.errors import LinkError
from dbx_aml._common.html import html_table
from dbx_aml._common.log import get_logger
from dbx_aml._common.redact import (
    environment_secrets,
    has_secret,
    is_secret_name,
    redact,
    redact_uri,
)
from dbx_aml._common.text import first_line, one_line, printable
from dbx_aml.cli.tables import Column, print_fields, print_table

ENTRA_TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbmEifQ.c2ln"
DATABRICKS_TOKEN = "dapi" + "0123456789abcdef" * 2
CLIENT_SECRET = "abc8Q~" + "aB3_.~-x" * 4
STORAGE_KEY = "aB3/" * 21 + "aB=="


@pytest.mark.parametrize("secret", [ENTRA_TOKEN, DATABRICKS_TOKEN, CLIENT_SECRET, STORAGE_KEY])
def test_tokens_are_replaced(secret: str) -> None:
    assert redact(f"refused {secret}, try again") == "refused ***, try again"
    assert has_secret(secret)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("https://user:pa@ss@mlflow.example", "https://***@mlflow.example"),
        ("postgresql://user:pa/ss@db.example/m", "postgresql://***@db.example/m"),
        ("postgresql://user:12/ss@db.example/m", "postgresql://***@db.example/m"),
        ("https://user:1/ss@mlflow.example", "https://***@mlflow.example"),
        ("https://user:pa?s#s@mlflow.example/x", "https://***@mlflow.example/x"),
        ("https://dapi12@mlflow.example/x", "https://***@mlflow.example/x"),
        ("https://to/ken@mlflow.example/x", "https://***@mlflow.example/x"),
        ("HTTPS://ana:pw@mlflow.example", "HTTPS://***@mlflow.example"),
        ("redis://:pa/ss@cache.example", "redis://***@cache.example"),
        ("abfss://c:pw@a.dfs.core.windows.net/x", "abfss://***@a.dfs.core.windows.net/x"),
        ("got 'https://ana:p'w@h.example', ask b@c", "got 'https://***@h.example', ask b@c"),
        ('{"u":"https://ana:pw@h.example","x":"a@b"}', '{"u":"https://***@h.example","x":"a@b"}'),
        ("https://a.example/x;https://b:pw@h.example", "https://a.example/x;https://***@h.example"),
    ],
)
def test_the_login_of_a_uri_is_replaced(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("https://mlflow.example/?sig=abc&se=2030", "https://mlflow.example/?sig=***&se=2030"),
        ("http://h/x?a=1&access_token=a;b&b=2", "http://h/x?a=1&access_token=***&b=2"),
        ("/x?KEY=abc%2F&b=2 failed", "/x?KEY=***&b=2 failed"),
        ("got 'https://h.example/?pwd=abc'; use", "got 'https://h.example/?pwd=***'; use"),
        ("Server=a;Uid=ana;Pwd={p;w};X=1", "Server=a;Uid=ana;Pwd=***;X=1"),
        ("AccountName=a;AccountKey=abc==;X=y", "AccountName=a;AccountKey=***;X=y"),
        ("x:///?odbc=UID%3Dana%3BPWD%3Dpw%3BX%3D1", "x:///?odbc=UID%3Dana%3BPWD%3D***%3BX%3D1"),
        ("grant_type=x&client_secret=abc", "grant_type=x&client_secret=***"),
        ('{"access_token":"abc","expires_in":1}', '{"access_token":"***","expires_in":1}'),
        ("Authorization: Bearer abcdefghijklmnop123", "Authorization: Bearer ***"),
    ],
)  # fmt: skip
def test_values_are_replaced_whose_names_say_that_they_are_secrets(
    text: str, redacted: str
) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "https://host/path?sv=2024 and models:/iris@champion",
        "https://adb-1.azuredatabricks.net/#workspace/Users/ana@contoso.com",
        "http://localhost:5000/#/experiments/1, ask ana@contoso.com",
        "delta.`abfss://data@lake.dfs.core.windows.net/gold@1`",
        "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/x",
        "azureml://artifacts/LocalUpload/ana@contoso.com",
        "databricks://scope:prefix",
        "models://profile@databricks/iris/3",
        "dbfs://scope:prefix@databricks/databricks/mlflow-tracking/1",
        "sqlite:////home/ana@contoso.com/mlflow.db",
        "dbfs:///Users/ana@contoso.com/model",
        "client_secret = ml/aml-secret (config.json)",
        '{"client_secret": {"scope": "ml", "key": "aml-secret"}}',
        "Basic authentication is off; set key=value",
        "AZURE_CLIENT_SECRET={{secrets/ml/aml-secret}}",
    ],
)
def test_a_text_without_a_secret_stays(text: str) -> None:
    assert redact(text) == text
    assert not has_secret(text)


def test_known_secrets_are_replaced_unless_they_are_too_short_to_be_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert redact("got correct-horse!", ["correct-horse"]) == "got ***!"
    assert redact("got it", ["it"]) == "got it"
    monkeypatch.setenv("TEAM_PASSWORD", "correct-horse")
    assert redact("got correct-horse!") == "got ***!"


@pytest.mark.parametrize(
    ("uri", "redacted"),
    [
        ("https://ana:pw@host:5000/path?token=abc#x", "https://host:5000/path"),
        ("https://ana:p/w@host:5000/path", "https://host:5000/path"),
        ("databricks://profile", "databricks://profile"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("databricks-uc", "databricks-uc"),
        ("/tmp/mlruns", "/tmp/mlruns"),
        ("http://[broken", "***"),
    ],
)
def test_the_address_of_a_server_has_no_login_and_no_query(uri: str, redacted: str) -> None:
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
    assert is_secret_name("DBX_AML_SECRET_ML_KEY")


def test_a_long_text_without_blanks_takes_no_longer_than_a_text_with_blanks() -> None:
    for text in ("a" * 300_000, "https://a.example/x;" * 10_000 + "@", "?key" * 50_000):
        assert redact(text) in (text, f"{text[:8]}***@")


# Parts of a secret; whatever is between two of them, no output has one.
PART = "Qz7x"
SEPARATORS = st.lists(st.text("@/:?#%+=-_~!$'\"`(),;", max_size=3), min_size=1, max_size=4)
PASSWORDS = SEPARATORS.map(lambda separators: PART + PART.join(separators) + PART)
# An "&" ends a value of a query, and so does a quote that something follows.
VALUES = st.lists(st.text("@/:?#%+=-_~!$(),;", max_size=3), min_size=1, max_size=4).map(
    lambda separators: PART + PART.join(separators) + PART
)
TOKENS = st.lists(st.text("@/+=-_~", max_size=3), min_size=1, max_size=4).map(
    lambda separators: PART + PART.join(separators) + PART
)
HOSTS = st.sampled_from(["mlflow.example", "localhost:5000", "db", "10.0.0.1", "[::1]:5432"])
HEX = st.text("0123456789abcdef", min_size=32, max_size=32)


@st.composite
def uris_with_secret(draw: st.DrawFn) -> str:
    """Return a URI whose secret parts all contain PART."""
    scheme = draw(st.sampled_from(["https", "http", "postgresql", "mysql+pymysql", "azureml"]))
    host = draw(HOSTS)
    if draw(st.booleans()):
        user = draw(st.sampled_from(["ana", "", "ana.b", "a@contoso.com"]))
        return f"{scheme}://{user}:{draw(PASSWORDS)}@{host}/m"
    if draw(st.booleans()):
        return f"https://{draw(TOKENS)}@{host}/m?x=1"
    name = draw(st.sampled_from(["sig", "password", "pwd", "token", "access_token", "key"]))
    return f"{scheme}://{host}/m?x=1&{name}={draw(VALUES)}"


@given(uri=uris_with_secret(), words=st.text(ascii_letters + digits + " .,;:'\"(){}", max_size=20))
def test_no_output_has_a_secret_of_a_uri(uri: str, words: str) -> None:
    texts = (uri, f"{words} {uri} {words}", f"got {uri!r}; {words}", json.dumps({"uri": uri}))
    for text in texts:
        for output in outputs(text):
            assert PART not in output, (text, output)
        assert redact(redact(text)) == redact(text)


@given(token=HEX, before=st.text(max_size=10), after=st.text(max_size=10))
def test_no_output_has_a_token_wherever_it_stands(token: str, before: str, after: str) -> None:
    for output in outputs(f"{before}dapi{token}{after}"):
        assert token not in output


@given(st.text())
def test_any_text_can_be_redacted_and_printed(text: str) -> None:
    assert not has_secret(redact(text))
    printable(text).encode()


def outputs(text: str) -> Iterator[str]:
    """Yield a text as the package shows it to people."""
    error = LinkError(f"server must answer: got {text}")
    yield from (str(error), repr(error), first_line(ValueError(text)), one_line(text, 60))
    yield from (printable(text), html_table([("uri", text)]))
    yield repr(Link(databricks_tracking_uri=text))
    file = io.StringIO()
    console = Console(file=file, width=200)
    print_table([Column(text)], [(text,)], title=text, console=console)
    print_fields([("uri", text)], console=console)
    yield file.getvalue()
    yield logged(ValueError(text))


def logged(error: Exception) -> str:
    """Return the log with an error as argument and as traceback, as a plain handler writes it."""
    file = io.StringIO()
    log, handler = get_logger("tests.redact"), logging.StreamHandler(file)
    log.propagate = False
    log.addHandler(handler)
    try:
        log.warning("failed: %s", error, exc_info=error)
    finally:
        log.removeHandler(handler)
    return file.getvalue()
