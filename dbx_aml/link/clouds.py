"""The hosts of each of Azure's clouds, and the check of a host before a token or data goes to it.

A token of Azure opens everything that its owner may use. A URI from a file, a run or a service is
therefore no permission to send one: its host must be Azure's own, or one that the user allows.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dbx_aml._common.errors import LinkError, UntrustedHostError
from dbx_aml._common.text import one_line

# Host names that count like Azure's own, with commas between them. A file never sets it.
ALLOWED_HOSTS_VARIABLE = "DBX_AML_ALLOWED_HOSTS"


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Hosts of one of Azure's clouds.

    Args:
        api: Suffix of Azure ML's hosts, which begin with the region.
        login: Host that issues Entra's tokens.
        arm: Host of Azure Resource Manager.
        studio: Host of Azure ML studio.
        portal: Host of the Azure portal.
        storage: Suffix of the hosts of storage accounts.
        inference: Suffix of the hosts of online endpoints, which begin with name and region.

    Source:
        azure-ai-ml 1.34 `_azure_environments`, azureml-mlflow 1.62 `_cloud/cloud.py`, Microsoft
        Learn, "Configure inbound and outbound network traffic" of Azure ML; seen 2026-11.
    """

    api: str
    login: str
    arm: str
    studio: str
    portal: str
    storage: str
    inference: str


CLOUDS: Mapping[str, Cloud] = {
    "AzureCloud": Cloud(
        api="api.azureml.ms",
        login="login.microsoftonline.com",
        arm="management.azure.com",
        studio="ml.azure.com",
        portal="portal.azure.com",
        storage="core.windows.net",
        inference="inference.ml.azure.com",
    ),
    "AzureChinaCloud": Cloud(
        api="api.ml.azure.cn",
        login="login.chinacloudapi.cn",
        arm="management.chinacloudapi.cn",
        studio="studio.ml.azure.cn",
        portal="portal.azure.cn",
        storage="core.chinacloudapi.cn",
        inference="inference.ml.azure.cn",
    ),
    "AzureUSGovernment": Cloud(
        api="api.ml.azure.us",
        login="login.microsoftonline.us",
        arm="management.usgovcloudapi.net",
        studio="ml.azure.us",
        portal="portal.azure.us",
        storage="core.usgovcloudapi.net",
        inference="inference.ml.azure.us",
    ),
}
# Suffix of the hosts in URIs of Microsoft's cluster script of 2019.
LEGACY_HOST_SUFFIX = ".experiments.azureml.net"
_DATA_PLANE_SUFFIXES = (LEGACY_HOST_SUFFIX, *(f".{cloud.api}" for cloud in CLOUDS.values()))
# Storage accounts in a separate DNS zone, which only the public cloud has.
_DNS_ZONE_SUFFIX = ".blob.storage.azure.net"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_URL = re.compile(r"([A-Za-z]+)://([^/?#]*)")
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ALLOWED_HOST = re.compile(rf"{_HOST_NAME.pattern}(?::[0-9]{{1,5}})?")


def check_data_plane_host(host: str) -> str:
    """Check that tokens for Azure ML may go to a host; return its name in small letters.

    Args:
        host: Host of a URI as it is written there, for example "WestEurope.api.azureml.ms:443".

    Raises:
        UntrustedHostError: The host is not Azure ML's in any cloud, and the user does not allow it.
        LinkError: DBX_AML_ALLOWED_HOSTS has something else than host names.
    """
    name = _host_name(host)
    if _is_host_below(name, _DATA_PLANE_SUFFIXES) or _is_allowed(host):
        return name or host.lower()
    raise UntrustedHostError(
        f"host must be one of Azure ML's: got {_shown_host(host)!r}; use the tracking URI of the "
        f"workspace's page in the portal, or allow the host with {ALLOWED_HOSTS_VARIABLE}"
    )


def check_azure_url(url: str) -> None:
    """Check that a token may go to a URL: to Azure Resource Manager or Azure ML, over https.

    Raises:
        UntrustedHostError: The URL leads to another host, or is not https.
        LinkError: DBX_AML_ALLOWED_HOSTS has something else than host names.
    """
    scheme, host = _scheme_and_host(url)
    if scheme != "https":
        raise UntrustedHostError(
            f"request with a token must use https: got '{scheme}://{_shown_host(host)}'; "
            "use the tracking URI of the workspace's page in the portal"
        )
    if host not in {cloud.arm for cloud in CLOUDS.values()}:
        check_data_plane_host(host)


def check_storage_url(url: str, cloud: str | None) -> None:
    """Check that bytes may go to a URL: to a storage account of the cloud, over https.

    Args:
        url: URL of a blob that a service names. The message has its host only.
        cloud: Cloud of the service, for example "AzureCloud"; None for a host that the user allows,
            which may be in any cloud.

    Raises:
        UntrustedHostError: The URL leads to another host, or is not https.
        LinkError: DBX_AML_ALLOWED_HOSTS has something else than host names.
    """
    scheme, host = _scheme_and_host(url)
    clouds = CLOUDS if cloud is None else {cloud: CLOUDS[cloud]}
    suffixes = [f".blob.{hosts.storage}" for hosts in clouds.values()]
    if "AzureCloud" in clouds:
        suffixes.append(_DNS_ZONE_SUFFIX)
    is_right = _is_host_below(_host_name(host), suffixes) or _is_allowed(host)
    if scheme != "https" or not is_right:
        raise UntrustedHostError(
            f"bytes must go to Azure's storage over https: got '{scheme}://{_shown_host(host)}'; "
            f"ask the owner of the workspace, or allow the host with {ALLOWED_HOSTS_VARIABLE}"
        )


def check_scoring_url(url: str, cloud: str) -> None:
    """Check that the key of an endpoint may go to a URL: to an inference host, over https.

    Args:
        url: Scoring URI of an endpoint on managed compute.
        cloud: Cloud of the workspace, for example "AzureCloud".

    Raises:
        UntrustedHostError: The URL leads to another host, or is not https.
        LinkError: DBX_AML_ALLOWED_HOSTS has something else than host names.
    """
    scheme, host = _scheme_and_host(url)
    is_right = _is_host_below(_host_name(host), [f".{CLOUDS[cloud].inference}"])
    if scheme != "https" or not (is_right or _is_allowed(host)):
        raise UntrustedHostError(
            f"key of an endpoint must go to one of Azure ML's inference hosts over https: got "
            f"'{scheme}://{_shown_host(host)}'; ask the owner of the workspace, or allow the host "
            f"with {ALLOWED_HOSTS_VARIABLE}"
        )


def is_same_data_plane(host: str, other_host: str) -> bool:
    """Tell whether two hosts lead to one service: a region's own host and a private endpoint do.

    A host that the user allows may lead to any region.

    Raises:
        UntrustedHostError: One of the hosts is not Azure ML's.
        LinkError: DBX_AML_ALLOWED_HOSTS has something else than host names.
    """
    hosts = {check_data_plane_host(host), check_data_plane_host(other_host)}
    regions = {cloud_and_region(name) for name in hosts}
    return len(hosts) == 1 or len(regions) == 1 or (None, None) in regions


def cloud_and_region(host: str) -> tuple[str | None, str | None]:
    """Return the cloud and the region that a host of Azure ML names, each None if it names none."""
    name = _host_name(host)
    if _is_host_below(name, (LEGACY_HOST_SUFFIX,)):
        return "AzureCloud", name.split(".")[0]
    for cloud_name, cloud in CLOUDS.items():
        if _is_host_below(name, (f".{cloud.api}",)):
            # Hosts of private endpoints may have "cert" after the region.
            labels = name.removesuffix(f".{cloud.api}").removesuffix(".cert")
            return cloud_name, labels.rpartition(".")[2]
    return None, None


def _scheme_and_host(url: str) -> tuple[str, str]:
    # Not urlsplit: it drops line breaks, which another client may read as part of the host.
    match = _URL.match(url)
    return (match[1].lower(), match[2]) if match else ("", "")


def _host_name(host: str) -> str:
    """Return a host in small letters and without the port of https; "" for no plain host name."""
    # Some letters outside of ASCII have a small letter inside of it.
    name = host.lower().removesuffix(":443") if host.isascii() else ""
    return name if len(name) <= 253 and _HOST_NAME.fullmatch(name) else ""


def _is_host_below(name: str, suffixes: Iterable[str]) -> bool:
    """Tell whether a host name has at least one label before one of the suffixes."""
    return any(name.endswith(suffix) for suffix in suffixes)


def _is_allowed(host: str) -> bool:
    names = [name.strip() for name in os.environ.get(ALLOWED_HOSTS_VARIABLE, "").split(",")]
    for name in filter(None, names):
        if not _ALLOWED_HOST.fullmatch(name.lower()):
            raise LinkError(
                f"{ALLOWED_HOSTS_VARIABLE} must be host names with commas between them: got "
                f"{_shown_host(name)!r}; use for example 'ml.contoso.com,ml2.contoso.com:8443'"
            )
    allowed = {name.lower().removesuffix(":443") for name in names if name}
    return host.lower().removesuffix(":443") in allowed


def _shown_host(host: str) -> str:
    """Return a host for a message, on one line and without the password of a login."""
    login, at, name = host.rpartition("@")
    return one_line(f"***@{name}" if login or at else name, 100)
