"""Any text of others: only errors of this package, no secret in them, no path outside."""

import base64
import json
import posixpath
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
import requests
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbx_aml import AmlWorkspace, Link
from dbx_aml._common.errors import DbxAmlError, UnsafePathError, UntrustedHostError
from dbx_aml._common.paths import join_inside, quote_segment, resolve_inside
from dbx_aml._common.redact import redact
from dbx_aml._common.text import CONTROL_CODES
from dbx_aml.cluster.attach_record import AttachRecord
from dbx_aml.cluster.folder import ClusterFolder
from dbx_aml.cluster.node.marker import NodeMarker
from dbx_aml.link.clouds import (
    check_azure_url,
    check_data_plane_host,
    check_storage_url,
    is_same_data_plane,
)
from dbx_aml.link.uris import parse_azureml_uri
from dbx_aml.tracking.azureml.logged_model_document import check_document
from dbx_aml.tracking.azureml.run_inputs_store import check_inputs
from dbx_aml.tracking.azureml.run_overflow import OverflowPart
from dbx_aml.tracking.azureml.tag_documents import document_in_tags
from dbx_aml.tracking.mirror.lease import Lease

fuzz = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Hosts
SUFFIXES = (
    ".api.azureml.ms",
    ".experiments.azureml.net",
    ".api.ml.azure.cn",
    ".api.ml.azure.us",
)
STORAGE_SUFFIXES = (".blob.core.windows.net", ".blob.storage.azure.net")
SCOPE = (
    "/subscriptions/8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42/resourceGroups/rg-ml/providers"
    "/Microsoft.MachineLearningServices/workspaces/mlw-team"
)
host_parts = st.sampled_from(
    [
        *("westeurope", "WestEurope", "collector.example", "a-b", "api", "cert", "8", "127.0.0.1"),
        *(*SUFFIXES, *STORAGE_SUFFIXES, "management.azure.com", ".ms", "azureml.ms"),
        *(".", "..", "@", ":", ":443", ":80", ":@", "//", "/", "\\", "#", "?", "%", "%2e", "%2F"),
        *(";", "&", "[", "]", "::1", " ", "\t", "\n", "\r", "\0", "\u3002", "\uff0e", "\u212a"),
        *("\u2100", "\xad", "\u200b", "xn--", "-", "_", "*", "$", "'", '"', "<", ">"),
    ]
)
hosts = st.lists(host_parts | st.text(max_size=3), max_size=7).map("".join)


def is_azure_host(host: str, suffixes: tuple[str, ...]) -> bool:
    name = host.removesuffix(":443")
    return name.isascii() and any(
        name.endswith(suffix) and len(name) > len(suffix) for suffix in suffixes
    )


def read_hosts(url: str) -> set[str | None]:
    """Return the hosts that the clients of this package would call for a URL."""
    prepared = requests.Request("GET", url).prepare()
    return {
        urllib3.util.parse_url(url).host,
        urlsplit(url).hostname,
        urlsplit(str(prepared.url)).hostname,
    }


@fuzz
@given(hosts)
def test_a_host_that_is_accepted_is_azure_mls_for_every_client(host: str) -> None:
    try:
        name = check_data_plane_host(host)
    except UntrustedHostError as error:
        assert_is_one_line(str(error))
        return
    assert is_azure_host(name, SUFFIXES)
    assert read_hosts(f"https://{host}/mlflow/v1.0") == {name}
    assert is_same_data_plane(host, host)


@fuzz
@given(hosts, st.sampled_from(["azureml", "adbazureml", "AZUREML", "https", "http", ""]))
def test_a_workspace_of_a_foreign_uri_has_a_host_of_azure_ml(host: str, scheme: str) -> None:
    uri = f"{scheme}://{host}/mlflow/v1.0{SCOPE}"
    parse_azureml_uri(uri)
    try:
        workspace = AmlWorkspace.from_tracking_uri(uri)
    except DbxAmlError as error:
        assert_is_one_line(str(error))
        return
    parsed = parse_azureml_uri(workspace.tracking_uri)
    assert parsed is not None
    assert is_azure_host(parsed.host, SUFFIXES)


@fuzz
@given(
    st.sampled_from(["https", "HTTPS", "http", "ftp", ""]), hosts, st.sampled_from(["", "/c/b?s=1"])
)
def test_a_url_that_is_accepted_is_https_and_azures_for_every_client(
    scheme: str, host: str, path: str
) -> None:
    url = f"{scheme}://{host}{path}"
    checks: dict[Callable[[], None], tuple[str, ...]] = {
        lambda: check_azure_url(url): (*SUFFIXES, "anagement.azure.com"),
        lambda: check_storage_url(url, "AzureCloud"): STORAGE_SUFFIXES,
    }
    for check, suffixes in checks.items():
        try:
            check()
        except UntrustedHostError as error:
            assert_is_one_line(str(error))
            continue
        assert scheme.lower() == "https"
        (name,) = read_hosts(url)
        assert name is not None
        assert is_azure_host(name, suffixes)


# Paths
names = st.lists(
    st.sampled_from(
        [
            *("a", "model", "MLmodel", ".", "..", "...", "/", "//", "\\", "..\\", "C:", "~", "-"),
            *("link", "file", "%2e%2e", "%2F", "%", "?", "#", ";", " ", "\0", "\n", "\x1b[2J"),
            *("\u2024\u2024", "\uff0f", "\u2215", "\ud800", "\u202e", "\xa0", "é"),
        ]
    )
    | st.text(max_size=4),
    max_size=6,
).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links that lead out of it, to itself, and to each other."""
    folder = tmp_path_factory.mktemp("paths") / "root"
    (folder / "model").mkdir(parents=True)
    (folder / "file").touch()
    (folder / "link").symlink_to("/etc")
    (folder / "model" / "link").symlink_to("..")
    (folder / "a").symlink_to("-")
    (folder / "-").symlink_to("a")
    return folder


@fuzz
@given(names)
def test_a_name_leads_to_a_path_inside_or_to_an_error(folder: Path, name: str) -> None:
    try:
        path = resolve_inside(folder, name)
    except UnsafePathError as error:
        assert_is_one_line(str(error))
        return
    assert path == path.resolve()
    assert path.is_relative_to(folder)
    assert path != folder


@fuzz
@given(names)
def test_a_name_leads_to_a_request_inside_or_to_an_error(name: str) -> None:
    root = "/api/2.0/fs/files/Volumes/main/ml/files"
    for join in (join_inside, lambda root, name: f"{root}/{quote_segment(name)}"):
        try:
            path = join(root, name)
        except UnsafePathError as error:
            assert_is_one_line(str(error))
            continue
        if join is join_inside:
            path = quote(path)
        # requests and urllib3 fold "..", and decode what need not be encoded.
        url = requests.Request("GET", f"https://adb-1.azuredatabricks.net{path}").prepare().url
        sent = unquote(urlsplit(str(url)).path)
        assert sent.startswith(f"{root}/")
        assert posixpath.normpath(sent).startswith(f"{root}/")
        assert not urlsplit(str(url)).query


# Secrets
SECRET_LETTERS = "abcXYZ0189@:/?#%!$*+=.-_~,;|^()[]{}'\""
passwords = st.text(SECRET_LETTERS, min_size=3, max_size=30).map(lambda text: f"q7{text}7q")
values = st.text("abcXYZ0189%+/=._~-", min_size=8, max_size=40).map(lambda text: f"q7{text}7q")
logins = st.sampled_from(
    [
        "https://user:{}@mlflow.example",
        "https://user:{}@mlflow.example:8080/path?a=1#b",
        "postgresql://user:{}@db.example/m",
        "postgresql+psycopg2://user:{}@db.example:5432/m?sslmode=require",
        "HTTP://User:{}@[::1]:80/",
        "azureml://user:{}@westeurope.api.azureml.ms/mlflow",
    ]
)
queries = st.sampled_from(
    [
        "https://mlflow.example/?sig={}&se=2030",
        "https://store.blob.core.windows.net/c/b?sv=1&SIG={}",
        "https://mlflow.example/a?access_token={}",
        "https://mlflow.example/?password={}#x",
        "https://mlflow.example/?pwd={}&token=1234",
        "https://mlflow.example/?key={}",
    ]
)
surroundings = st.sampled_from(
    [
        "{}",
        "error: {}",
        "got '{}'; use another",
        '{{"uri": "{}"}}',
        "<a href={}>",
        "a\n{}\nb",
        "({})",
    ]
) | st.text(max_size=20).map(lambda text: text.replace("{", "").replace("}", "") + " {}")


@fuzz
@given(surroundings, logins, passwords)
def test_no_text_shows_the_login_of_a_uri(surrounding: str, uri: str, password: str) -> None:
    # A quote in a text may end the URI.
    if surrounding not in ("{}", "error: {}"):
        password = password.replace("'", "").replace('"', "")
    text = surrounding.format(uri.format(password))

    assert password not in redact(text, ())
    assert password not in str(DbxAmlError(text))


@fuzz
@given(surroundings, queries, values)
def test_no_text_shows_a_secret_of_a_query(surrounding: str, url: str, value: str) -> None:
    text = surrounding.format(url.format(value))

    assert value not in redact(text, ())
    assert value not in str(DbxAmlError(text))


@fuzz
@given(st.text(max_size=300), st.lists(st.text(SECRET_LETTERS, min_size=8), max_size=3))
def test_no_text_shows_a_known_secret(text: str, secrets: list[str]) -> None:
    shown = redact(text.join(["", *secrets, ""]), secrets)

    assert not [secret for secret in secrets if secret in shown]
    assert redact(shown, secrets) == shown


# Files and documents
SECRET = "dapi0123456789abcdef0123456789abcdef"
scalars = st.sampled_from(
    [
        *(None, True, 0, -1, 10**30, 1.5, float("nan"), float("inf"), "", "a", "READY", "\ud800"),
        *("ok", SECRET, f"https://user:{SECRET}@host.example", "\x1b[2J", "../../x", "/etc/passwd"),
    ]
)
json_values = st.recursive(
    scalars | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
noise = st.binary(max_size=40) | st.sampled_from(
    [
        *(b"", b"null", b"[]", b'"' + SECRET.encode() + b'"', b"\xff\xfe", b"\xef\xbb\xbf{}"),
        *(b"[" * 100_000, b'{"a":' * 100_000, b'{"version":' + b"9" * 10_000 + b"}"),
    ]
)


@st.composite
def changed(draw: st.DrawFn, content: dict[str, Any]) -> bytes:
    """Return JSON like a right file, in which some values at any depth are others."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(0, 3))):
        place: Any = content
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = draw(st.sampled_from(list(keys)))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
                place[key] = draw(json_values)
                break
            place = place[key]
    return json.dumps(content).encode()


def assert_is_one_line(message: str) -> None:
    assert not CONTROL_CODES.search(message)
    assert len(message.splitlines()) == 1
    assert len(message) < 1000
    assert SECRET not in message


def read(reader: Callable[[bytes], Any], text: bytes, *errors: type[Exception]) -> Any:
    """Return what a reader makes of a text; None for one of its errors."""
    try:
        return reader(text)
    except errors as error:
        assert_is_one_line(str(error))
        return None


CONFIG = {
    "subscription_id": "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42",
    "resource_group": "rg-ml",
    "workspace_name": "mlw-team",
    "dbx_aml": {
        "mode": "dual",
        "registry": "aml",
        "region": "westeurope",
        "client_id": "c",
        "tenant_id": "t",
        "client_secret": {"scope": "s", "key": "k"},
        "aml_tracking_uri": f"azureml://westeurope.api.azureml.ms/mlflow/v1.0{SCOPE}",
        "retry_timeout_s": 5,
    },
}


@fuzz
@given(changed(CONFIG) | noise)
def test_config_json_gives_a_link_or_one_line(folder: Path, text: bytes) -> None:
    file = folder.parent / "config.json"
    file.write_bytes(text)

    link = read(lambda _: Link.from_file(file), text, DbxAmlError)

    if link is not None:
        assert SECRET not in repr(link)
        workspace = link.aml_workspace
        known_uri = workspace.known_tracking_uri if workspace is not None else None
        parsed = parse_azureml_uri(known_uri) if known_uri else None
        if parsed is not None:
            assert is_azure_host(parsed.host, SUFFIXES)


CLUSTER_FOLDER = "/Volumes/main/ml/dbx_aml/1126-000000-abcdefgh"
RECORD = {
    "method": "init-script",
    "script": {"volumes": {"destination": f"{CLUSTER_FOLDER}/dbx_aml_init.sh"}},
    "variables": {"DBX_AML_CONFIG": f"{CLUSTER_FOLDER}/config.json"},
    "previous_values": {"DBX_AML_CONFIG": None},
    "libraries": [{"whl": f"{CLUSTER_FOLDER}/wheelhouse/a-1-py3-none-any.whl"}],
    "allowlist_entries": [f"{CLUSTER_FOLDER}/dbx_aml_init.sh"],
    "files": {"config.json": "0" * 64, "wheelhouse/a-1-py3-none-any.whl": "0" * 64},
    "version": "0.1.0",
}


@fuzz
@given(changed(RECORD) | noise)
def test_attached_json_names_files_of_its_folder_or_gives_one_line(text: bytes) -> None:
    cluster_folder = ClusterFolder(None, CLUSTER_FOLDER)  # type: ignore[arg-type]

    record = read(lambda text: AttachRecord.from_json(text, cluster_folder), text, DbxAmlError)

    if record is not None:
        paths = [f"{CLUSTER_FOLDER}/{name}" for name in record.files]
        paths += [path for library in record.libraries for path in library.values()]
        paths += record.allowlist_entries
        paths += [script["destination"] for script in (record.script or {}).values()]
        for path in paths:
            assert posixpath.normpath(path) == path
            assert path.startswith(f"{CLUSTER_FOLDER}/")


MARKER = {
    "status": "ok",
    "reason": None,
    "version": "0.1.0",
    "time": "2026-11-24T22:05:09+00:00",
    "is_driver": True,
    "installed": {"azureml-mlflow": "1.62.0.post6"},
    "messages": ["a"],
    "steps": {"fetch": 0.4},
    "variables": {"A": "b"},
    "fingerprint": "5f70bf18",
}


@fuzz
@given(changed(MARKER) | noise)
def test_marker_json_gives_a_marker_or_one_line(text: bytes) -> None:
    marker = read(NodeMarker.from_json, text, ValueError)

    if marker is not None:
        assert isinstance(marker.is_ok, bool)
        assert NodeMarker.from_json(marker.to_json()) == marker


MODEL = {
    "name": "m",
    "folder": "m",
    "status": "READY",
    "created": 1,
    "updated": 2,
    "tags": {"a": "b"},
    "params": {"a": "b"},
    "metrics": [["auc", 0.5, 1, 0, "", "", "r"]],
}
DATASET_FIELDS = ("name", "digest", "source_type", "source", "schema", "profile")
INPUTS = {
    "outputs": {"m-1": 0},
    "inputs": ["m-2"],
    "datasets": [{"dataset": dict.fromkeys(DATASET_FIELDS, "d"), "tags": {"a": "b"}}],
}


@fuzz
@given(
    changed(MODEL) | changed(INPUTS) | noise,
    st.sampled_from(["1|", "2|", "\u00b2|", "-1|", "|", ""]),
    st.sampled_from([check_document, check_inputs]),
    st.booleans(),
)
def test_tags_give_a_document_or_one_line(
    text: bytes, count: str, check: Callable[[Any], None], is_packed: bool
) -> None:
    content = text.decode("latin-1")
    if is_packed:
        content = f"z:{base64.b64encode(zlib.compress(text)).decode()}"
    tags = {"k.0": f"{count}{content[:900]}", "k.1": content[900:]}

    document = read(lambda _: document_in_tags("k", tags, check), text, ValueError)

    if document is not None and check is check_document:
        assert ".." not in document["folder"].split("/")


@fuzz
@given(changed({"params": {"a": "1"}, "tags": {"b": None}, "values": {}}) | noise)
def test_an_overflow_artifact_gives_a_part_or_one_line(text: bytes) -> None:
    part = read(OverflowPart.from_json, text, ValueError)

    if part is not None:
        values = [*part.params.values(), *part.values.values()]
        assert all(isinstance(value, str) for value in values)


@fuzz
@given(st.text("0123456789/ \u00b2-abc", max_size=60) | st.text())
def test_a_tag_gives_a_lease_or_none(text: str) -> None:
    lease = Lease.parse(text)

    if lease is not None:
        assert lease.is_expired in (True, False)
