"""Each host that the link needs: DNS, proxy, TLS and an answer; and this machine's clock."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from os import environ
from urllib.parse import urlsplit

from dbx_aml._common.deadline import call_within
from dbx_aml._common.http import NoAnswerError, root_cause, send
from dbx_aml._common.retry import RetryPolicy
from dbx_aml.azure.credential_sources import authority_host, cloud_of_link
from dbx_aml.doctor.azure import aml_workspace, workspace_properties
from dbx_aml.doctor.check_result import CheckResult, SkippedError, failed, ok, warning
from dbx_aml.doctor.checks import CheckContext
from dbx_aml.doctor.databricks import databricks_access
from dbx_aml.link.clouds import check_storage_url

# Azure refuses tokens and signed storage URLs from about five minutes of skew on.
_FAILING_SKEW_S = 300.0
_WARNING_SKEW_S = 30.0
_CLOUD_VARIABLES = ("ARM_CLOUD_METADATA_URL", "AZUREML_CURRENT_CLOUD")


def sign_in_url(context: CheckContext) -> str:
    """Return the URL of the host that issues Azure tokens."""
    aml_workspace(context)
    return _with_https(authority_host(context.link))


def management_url(context: CheckContext) -> str:
    """Return the URL of Azure Resource Manager."""
    return _with_https(aml_workspace(context).hosts.arm)


def tracking_url(context: CheckContext) -> str:
    """Return the URL of the workspace's tracking server."""
    workspace = aml_workspace(context)
    if workspace.known_tracking_uri is None:
        uri = workspace_properties(context).get_or_skip().get("mlFlowTrackingUri")
        if not uri:
            raise SkippedError("Azure Resource Manager has no tracking server for the workspace")
        workspace = workspace.at_tracking_uri(uri)
    return _with_https(urlsplit(workspace.tracking_uri).netloc)


def artifact_url(context: CheckContext) -> str:
    """Return the URL of the storage account that artifacts are uploaded to."""
    properties = workspace_properties(context).get_or_skip()
    account = str(properties.get("storageAccount") or "").rpartition("/")[2]
    if not account:
        raise SkippedError("Azure Resource Manager has no storage account for the workspace")
    url = _with_https(f"{account}.blob.{cloud_of_link(context.link).storage}")
    check_storage_url(url, aml_workspace(context).cloud)
    return url


def databricks_url(context: CheckContext) -> str:
    """Return the URL of the Databricks workspace."""
    return databricks_access(context).get_or_skip().url


def check_cloud_metadata(context: CheckContext) -> CheckResult:
    """Request the list of Azure's clouds, which azureml-mlflow needs if no variable has one."""
    workspace = aml_workspace(context)
    metadata_url, cloud = (environ.get(name) for name in _CLOUD_VARIABLES)
    if metadata_url is None and cloud:
        raise SkippedError(f"not needed: AZUREML_CURRENT_CLOUD is {cloud}")
    url = f"https://{workspace.hosts.arm}/metadata/endpoints?api-version=2019-05-01"
    result = check_host(context, metadata_url or url)
    if result.status != "failed" or metadata_url:
        return result
    # The stores of this package do not need it; azureml-mlflow alone waits for it up to 30 s.
    return warning(result.message, f"set AZUREML_CURRENT_CLOUD={workspace.cloud}")


def check_host(context: CheckContext, url: str) -> CheckResult:
    """Resolve a host's name or find its proxy, and get an answer from the host.

    Args:
        context: Input of the checks; the host's clock is recorded in it.
        url: URL at the host, for example "https://management.azure.com".
    """
    from requests.utils import get_environ_proxies, select_proxy

    parsed = urlsplit(url)
    host, port = parsed.hostname or "", parsed.port or (443 if parsed.scheme == "https" else 80)
    label = host if port in (80, 443) else f"{host}:{port}"
    proxy = urlsplit(select_proxy(url, get_environ_proxies(url, no_proxy=None)) or "")
    route = f"through proxy {proxy.hostname}:{proxy.port}"
    if not proxy.hostname:
        try:
            addresses = call_within(lambda: socket.getaddrinfo(host, port), context.seconds_left)
        except OSError as err:  # includes TimeoutError
            return failed(
                f"{label}: its name cannot be resolved ({err.strerror or err})",
                "let this network's DNS resolve it; a private endpoint needs its private DNS zone "
                "linked to the network; or set HTTPS_PROXY",
            )
        address = str(addresses[0][4][0])
        ip = ip_address(address.partition("%")[0])
        route = f"at {address}{', private' if ip.is_private and not ip.is_loopback else ''}"
    sent_at, started = time.time(), time.monotonic()
    try:
        policy = RetryPolicy(timeout_s=context.seconds_left, max_attempts=1)
        response = send("HEAD", url, policy)
    except NoAnswerError as err:
        return _request_failure(err, f"{label} {route}", f"{host}:{port}", proxy.hostname)
    seconds = time.monotonic() - started
    _record_clock_skew(context, host, response.headers.get("Date"), sent_at + seconds / 2)
    return ok(f"{label} {route} answers in {1000 * seconds:.0f} ms")


def check_clock(context: CheckContext) -> CheckResult:
    """Compare this machine's clock with the clocks of the hosts that answered."""
    if not context.clock_skew_s:
        raise SkippedError("no host has sent its time")
    host, skew_s = min(dict(context.clock_skew_s).items(), key=lambda item: abs(item[1]))
    message = f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} {host}"
    fix = "set the clock (timedatectl set-ntp true); on a cluster restart it"
    if abs(skew_s) >= _FAILING_SKEW_S:
        return failed(f"{message}: Azure refuses tokens and storage signatures", fix)
    if abs(skew_s) >= _WARNING_SKEW_S:
        return warning(message, fix)
    return ok(f"within {_WARNING_SKEW_S:.0f} s of {host}")


def _record_clock_skew(
    context: CheckContext, host: str, date_header: str | None, local_time: float
) -> None:
    try:
        host_time = parsedate_to_datetime(date_header or "").timestamp()
    except ValueError:
        return  # some hosts send no date
    context.clock_skew_s[host] = local_time - host_time


def _request_failure(
    error: NoAnswerError, label: str, address: str, proxy: str | None
) -> CheckResult:
    """Return the result for a request that failed.

    Args:
        error: Error of the request, with its cause.
        label: Host and route, for people.
        address: Host and port that the network must allow.
        proxy: Host of the proxy; None without a proxy.
    """
    import requests

    cause = root_cause(error.cause) if error.cause else str(error)
    if isinstance(error.cause, requests.exceptions.SSLError):
        return failed(
            f"{label}: its certificate is not trusted ({cause}); a firewall may decrypt the "
            "connection",
            "set REQUESTS_CA_BUNDLE and SSL_CERT_FILE to a PEM file with the organisation's CA",
        )
    if isinstance(error.cause, requests.exceptions.ProxyError):
        return failed(
            f"{label}: the proxy does not let it through ({cause})",
            f"let the proxy pass {address}, or add the host to NO_PROXY",
        )
    if proxy:
        return failed(f"{label}: {cause}", f"let the proxy pass {address}")
    return failed(f"{label}: {cause}", f"open the network to {address}, or set HTTPS_PROXY")


def _with_https(host: str) -> str:
    return host if "://" in host else f"https://{host}"


def _host_check(get_url: Callable[[CheckContext], str]) -> Callable[[CheckContext], CheckResult]:
    return lambda context: check_host(context, get_url(context))


CHECKS = {
    "sign-in host": _host_check(sign_in_url),
    "management host": _host_check(management_url),
    "tracking host": _host_check(tracking_url),
    "artifact host": _host_check(artifact_url),
    "Databricks host": _host_check(databricks_url),
    "cloud metadata": check_cloud_metadata,
}
