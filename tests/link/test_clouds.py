"""Hosts that may get a token or data: Azure's own in each cloud, and those that the user allows."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requests import PreparedRequest

from dbx_aml._common.errors import LinkError, UntrustedHostError
from dbx_aml.link.clouds import (
    CLOUDS,
    check_azure_url,
    check_data_plane_host,
    check_storage_url,
    cloud_and_region,
    is_same_data_plane,
)

GUID = "2f1e4c7a-0b3d-4d55-9a10-6b1c2d3e4f50"
RIGHT_SUFFIXES = (".api.azureml.ms", ".api.ml.azure.cn", ".api.ml.azure.us", ".azureml.net")


@pytest.fixture(autouse=True)
def no_allowed_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBX_AML_ALLOWED_HOSTS", raising=False)


@pytest.mark.parametrize(
    ("host", "cloud", "region"),
    [
        ("westeurope.api.azureml.ms", "AzureCloud", "westeurope"),
        (f"{GUID}.workspace.westeurope.api.azureml.ms", "AzureCloud", "westeurope"),
        (f"{GUID}.workspace.westeurope.cert.api.azureml.ms", "AzureCloud", "westeurope"),
        ("westeurope.experiments.azureml.net", "AzureCloud", "westeurope"),
        ("chinaeast2.api.ml.azure.cn", "AzureChinaCloud", "chinaeast2"),
        (f"{GUID}.workspace.chinanorth3.api.ml.azure.cn", "AzureChinaCloud", "chinanorth3"),
        ("usgovvirginia.api.ml.azure.us", "AzureUSGovernment", "usgovvirginia"),
        (f"{GUID}.workspace.usgovarizona.api.ml.azure.us", "AzureUSGovernment", "usgovarizona"),
    ],
)
def test_hosts_of_each_cloud_and_of_private_endpoints_are_right(
    host: str, cloud: str, region: str
) -> None:
    assert check_data_plane_host(host) == host
    assert check_data_plane_host(f"{host.upper()}:443") == host
    assert cloud_and_region(host) == (cloud, region)
    check_azure_url(f"https://{host}/mlflow/v2.0")


@pytest.mark.parametrize(
    "host",
    [
        "collector.example",
        "westeurope.api.azureml.ms.collector.example",
        "westeurope-api.azureml.ms.collector.example:443",
        "westeurope-api.azureml.ms",
        "westeuropeapi.azureml.ms",
        "api.azureml.ms",
        ".api.azureml.ms",
        "a..api.azureml.ms",
        "-.api.azureml.ms",
        "westeurope.api.azureml.ms.",
        "westeurope.api.azureml.ms:8443",
        "westeurope.api.azureml.ms:443:443",
        "westeurope.api.azureml.ms@collector.example",
        "ana@westeurope.api.azureml.ms",
        "collector.example#.api.azureml.ms",
        "collector.example\\.api.azureml.ms",
        "collector.example%2f.api.azureml.ms",
        "collector.example/.api.azureml.ms",
        "collector.example?.api.azureml.ms",
        "collector.example\n.api.azureml.ms",
        "westeurope.api.azureml.ms\n",
        "west europe.api.azureml.ms",
        "\u212aorea.api.azureml.ms",
        "westeurope\u3002api.azureml.ms",
        f"{'a' * 64}.api.azureml.ms",
        f"{'a.' * 130}api.azureml.ms",
        "[::1]",
        "127.0.0.1",
        "",
    ],
)
def test_another_host_is_refused_in_one_line_that_names_it(host: str) -> None:
    with pytest.raises(UntrustedHostError) as caught:
        check_data_plane_host(host)
    message = str(caught.value)
    assert message.startswith("host must be one of Azure ML's: got '")
    assert "\n" not in message
    assert "ana@" not in message
    with pytest.raises(UntrustedHostError):
        check_azure_url(f"https://{host}/")
    assert cloud_and_region(host) == (None, None) or host.endswith(":8443")


def test_the_message_has_no_password_and_an_end() -> None:
    with pytest.raises(UntrustedHostError, match=r"got '\*\*\*@collector\.example'; use") as caught:
        check_data_plane_host("ana:pass-word@collector.example")
    assert "pass-word" not in str(caught.value)
    with pytest.raises(UntrustedHostError) as caught:
        check_data_plane_host(f"{'x' * 5000}.example")
    assert len(str(caught.value)) < 300


def labels() -> st.SearchStrategy[str]:
    return st.text("abz09-.:@#\\/%?[] \n\t\u212a", max_size=20)


@given(labels(), st.sampled_from(["", *RIGHT_SUFFIXES]), labels())
@example("collector.example\\@", ".api.azureml.ms", "")
@example("collector.example", ".api.azureml.ms", ":443@x")
def test_every_client_calls_the_host_that_was_checked(begin: str, suffix: str, end: str) -> None:
    try:
        name = check_data_plane_host(f"{begin}{suffix}{end}")
    except UntrustedHostError:
        return
    request = PreparedRequest()
    request.prepare_url(f"https://{name}/mlflow", {})
    for url in (f"https://{name}/mlflow", str(request.url)):
        assert urlsplit(url).hostname == name
        assert urlsplit(url).netloc == name
    assert name.endswith(RIGHT_SUFFIXES)


def test_a_token_goes_to_azure_resource_manager_and_only_over_https() -> None:
    for cloud in CLOUDS.values():
        check_azure_url(f"https://{cloud.arm}/subscriptions")
    for url in (
        "http://management.azure.com/subscriptions",
        "https://management.azure.com.collector.example/",
        "https://management.azure.com@collector.example/",
        "https://x.management.azure.com/",
        "management.azure.com",
        "https://[/",
    ):
        with pytest.raises(UntrustedHostError):
            check_azure_url(url)


def test_a_host_that_the_user_allows_is_right_exactly_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DBX_AML_ALLOWED_HOSTS", " ML.contoso.com ,ml2.contoso.com:8443,")
    assert check_data_plane_host("ml.contoso.com") == "ml.contoso.com"
    assert check_data_plane_host("ml.Contoso.com:443") == "ml.contoso.com"
    assert check_data_plane_host("ml2.contoso.com:8443") == "ml2.contoso.com:8443"
    check_storage_url("https://ml.contoso.com/c/b?sig=x", None)
    for host in ("x.ml.contoso.com", "ml.contoso.com:8443", "ml2.contoso.com", "contoso.com"):
        with pytest.raises(UntrustedHostError):
            check_data_plane_host(host)


@pytest.mark.parametrize("text", ["*", "*.contoso.com", "https://ml.contoso.com", "a@b.c", "a/b"])
def test_allowed_hosts_are_host_names(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DBX_AML_ALLOWED_HOSTS", text)
    with pytest.raises(LinkError, match="DBX_AML_ALLOWED_HOSTS must be host names"):
        check_data_plane_host("ml.contoso.com")


@pytest.mark.parametrize(
    ("url", "cloud"),
    [
        ("https://store.blob.core.windows.net/c/b?sig=x", "AzureCloud"),
        ("https://store.z01.blob.storage.azure.net/c/b?sig=x", "AzureCloud"),
        ("https://store.blob.core.chinacloudapi.cn/c/b", "AzureChinaCloud"),
        ("https://store.blob.core.usgovcloudapi.net/c/b", "AzureUSGovernment"),
        ("https://store.blob.core.usgovcloudapi.net/c/b", None),
    ],
)
def test_bytes_go_to_the_storage_of_the_cloud(url: str, cloud: str | None) -> None:
    check_storage_url(url, cloud)


@pytest.mark.parametrize(
    "url",
    [
        "http://store.blob.core.windows.net/c/b?sig=secret",
        "https://store.blob.core.chinacloudapi.cn/c/b?sig=secret",
        "https://store.blob.core.windows.net.collector.example/c/b?sig=secret",
        "https://store.blob.core.windows.net@collector.example/c/b?sig=secret",
        "https://collector.example\\@store.blob.core.windows.net/c/b?sig=secret",
        "https://collector.example#.blob.core.windows.net/c/b?sig=secret",
        "https://blob.core.windows.net/c/b?sig=secret",
        "https://store.file.core.windows.net/c/b?sig=secret",
        "https://westeurope.api.azureml.ms/c/b?sig=secret",
        "file:///c/b?sig=secret",
        "",
    ],
)
def test_bytes_go_nowhere_else_and_the_message_has_no_signature(url: str) -> None:
    with pytest.raises(UntrustedHostError, match="must go to Azure's storage over https") as caught:
        check_storage_url(url, "AzureCloud")
    assert "secret" not in str(caught.value)


def test_a_region_and_its_private_endpoints_are_one_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private = f"{GUID}.workspace.westeurope.api.azureml.ms"
    assert is_same_data_plane("westeurope.api.azureml.ms", private)
    assert is_same_data_plane("westeurope.api.azureml.ms", "westeurope.experiments.azureml.net")
    assert not is_same_data_plane("northeurope.api.azureml.ms", private)
    assert not is_same_data_plane("chinaeast2.api.azureml.ms", "chinaeast2.api.ml.azure.cn")
    monkeypatch.setenv("DBX_AML_ALLOWED_HOSTS", "ml.contoso.com")
    assert is_same_data_plane("ml.contoso.com", private)
    with pytest.raises(UntrustedHostError):
        is_same_data_plane("collector.example", private)
