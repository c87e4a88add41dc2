"""The network: name, proxy, TLS and an answer from each host that is needed; and its clock."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from os import environ
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dbx_aml._common.deadline import call_within
from dbx_aml.azure.credential_sources import authority_of, cloud_of
from dbx_aml.azure.workspaces import innermost, keep_headers
from dbx_aml.doctor.azure import aml_workspace, properties
from dbx_aml.doctor.check_result import Finding, SkippedError, failed, ok, warning
from dbx_aml.doctor.checks import Case
from dbx_aml.doctor.databricks import access

if TYPE_CHECKING:
    from requests import RequestException

# Tokens and signed URLs of storage are refused from about here on.
_SKEW_FAILS_S = 300.0
_SKEW_WARNS_S = 30.0
_CLOUD_VARIABLES = ("ARM_CLOUD_METADATA_URL", "AZUREML_CURRENT_CLOUD")


def sign_in(case: Case) -> str:
    """Return the URL of the host that gives tokens."""
    aml_workspace(case)
    return _https(authority_of(case.link))


def management(case: Case) -> str:
    """Return the URL of Azure Resource Manager."""
    return _https(aml_workspace(case).hosts.arm)


def tracking(case: Case) -> str:
    """Return the URL of the workspace's tracking server."""
    uri = aml_workspace(case).tracking_uri or properties(case).needed().get("mlFlowTrackingUri")
    if not uri:
        raise SkippedError("Azure Resource Manager names no tracking server of the workspace")
    return _https(urlsplit(uri).netloc)


def artifacts(case: Case) -> str:
    """Return the URL of the storage account that artifacts are uploaded to."""
    account = str(properties(case).needed().get("storageAccount") or "").rpartition("/")[2]
    if not account:
        raise SkippedError("Azure Resource Manager names no storage account of the workspace")
    return _https(f"{account}.blob.{cloud_of(case.link).storage}")


def metadata(case: Case) -> Finding:
    """Ask for the list of Azure's clouds, which azureml-mlflow does where nobody names one."""
    workspace = aml_workspace(case)
    own, cloud = (environ.get(name) for name in _CLOUD_VARIABLES)
    if own is None and cloud:
        raise SkippedError(f"nobody asks for it: AZUREML_CURRENT_CLOUD is {cloud}")
    url = own or f"https://{workspace.hosts.arm}/metadata/endpoints?api-version=2019-05-01"
    found = reach(case, url)
    if found.state != "failed" or own:
        return found
    # Our own stores do not ask; azureml-mlflow without them does, for up to 30 s.
    return warning(found.said, f"set AZUREML_CURRENT_CLOUD={workspace.cloud}")


def reach(case: Case, url: str) -> Finding:
    """Resolve a host's name, or find its proxy, and have it answer."""
    import requests
    from requests.utils import get_environ_proxies, select_proxy

    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    shown = host if port in (80, 443) else f"{host}:{port}"
    proxy = urlsplit(select_proxy(url, get_environ_proxies(url, no_proxy=None)) or "")
    way = f"through proxy {proxy.hostname}:{proxy.port}"
    if not proxy.hostname:
        try:
            named = call_within(lambda: socket.getaddrinfo(host, port), case.left_s)
        except OSError as err:  # a TimeoutError is one
            return failed(
                f"{shown}: its name cannot be resolved ({err.strerror or err})",
                "let this network's DNS resolve it; a private endpoint needs its private DNS zone "
                "linked to the network; or set HTTPS_PROXY",
            )
        address = str(named[0][4][0])
        private = ip_address(address.partition("%")[0])
        kind = ", private" if private.is_private and not private.is_loopback else ""
        way = f"at {address}{kind}"
    sent, started = time.time(), time.monotonic()
    try:
        with requests.Session() as session:
            session.auth = keep_headers
            answer = session.head(url, timeout=case.left_s, allow_redirects=False)
    except requests.RequestException as err:
        return _explained(err, f"{shown} {way}", f"{host}:{port}", proxy.hostname)
    seconds = time.monotonic() - started
    _note_clock(case, host, answer.headers.get("Date"), sent + seconds / 2)
    return ok(f"{shown} {way} answers in {1000 * seconds:.0f} ms")


def clock(case: Case) -> Finding:
    """Compare this machine's clock with those of the hosts that answered; looked at last."""
    if not case.ahead_s:
        raise SkippedError("no host has told its time")
    host, ahead = min(dict(case.ahead_s).items(), key=lambda one: abs(one[1]))
    said = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {host}"
    fix = "set the clock (timedatectl set-ntp true); on a cluster restart it"
    if abs(ahead) >= _SKEW_FAILS_S:
        return failed(f"{said}: tokens and storage signatures are refused", fix)
    if abs(ahead) >= _SKEW_WARNS_S:
        return warning(said, fix)
    return ok(f"within {_SKEW_WARNS_S:.0f} s of {host}")


def _note_clock(case: Case, host: str, date: str | None, now: float) -> None:
    try:
        case.ahead_s[host] = now - parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return  # some hosts have none


def _explained(err: RequestException, who: str, target: str, proxy: str | None) -> Finding:
    """Return what failed on the way to a host, in words, and who can mend it."""
    import requests

    why = innermost(err)
    if isinstance(err, requests.exceptions.SSLError):
        return failed(
            f"{who}: its certificate is not trusted ({why}); a firewall may open the connection",
            "set REQUESTS_CA_BUNDLE and SSL_CERT_FILE to a PEM file with the organisation's CA",
        )
    if isinstance(err, requests.exceptions.ProxyError):
        return failed(
            f"{who}: the proxy does not let it through ({why})",
            f"let the proxy pass {target}, or add the host to NO_PROXY",
        )
    if isinstance(err, requests.Timeout):
        why = "no answer in time"
    if proxy:
        return failed(f"{who}: {why}", f"let the proxy pass {target}")
    return failed(f"{who}: {why}", f"open the network to {target}, or set HTTPS_PROXY")


def _https(host: str) -> str:
    return host if "://" in host else f"https://{host}"


def _host_check(url_of: Callable[[Case], str]) -> Callable[[Case], Finding]:
    return lambda case: reach(case, url_of(case))


CHECKS = {
    "sign-in host": _host_check(sign_in),
    "management host": _host_check(management),
    "tracking host": _host_check(tracking),
    "artifact host": _host_check(artifacts),
    "Databricks host": _host_check(lambda case: access(case).needed().url),
    "cloud metadata": metadata,
}
