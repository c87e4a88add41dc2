"""Where a token may come from, in order, and what speaks for each; nothing asks a person."""

import importlib
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dbx_aml._common.errors import LinkError
from dbx_aml.link.clouds import CLOUDS, Cloud
from dbx_aml.link.link import Link
from dbx_aml.link.secret_reference import SecretRef

# What azure-identity's clients are told: the bound on the whole is `bounded`.
_QUICK: dict[str, Any] = {
    "connection_timeout": 3,
    "read_timeout": 5,
    "retry_total": 2,
    "retry_backoff_factor": 0.2,
}
_IMDS = "http://169.254.169.254"
_IMDS_PROBE_S = 1.0
_CLI_S = 5
# Everything that this module reads; who sees another one of them has to ask anew.
VARIABLES = (
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "AZUREML_CURRENT_CLOUD",
    "DATABRICKS_DEFAULT_SERVICE_CREDENTIAL_NAME",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "PATH",
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One way to a token.

    Args:
        name: For people, for example "managed identity".
        is_configured: Whether somebody set it up. The first one that is set up is used, and no
            other, because a wrong one must not turn into somebody else's identity.
        why: What says so, for example "AZURE_CLIENT_SECRET is set".
        is_ambient: Nobody sets it up, it is there or not: such ones are tried in turn.
        is_chosen: The token comes from here.
        make: Makes the credential of azure-identity; keeps the secrets it has read.
    """

    name: str
    is_configured: bool
    why: str
    is_ambient: bool = False
    is_chosen: bool = False
    make: Callable[[set[str]], Any] = field(repr=False, compare=False)


def sources(link: Link) -> list[Source]:
    """Return all sources, in the order in which they count.

    Args:
        link: Its references count before the variables.

    Source:
        Microsoft Learn, "Credential chains in the Azure Identity client library for Python"
        (variables), and "Manage access to external cloud services using service credentials" of
        Azure Databricks (DATABRICKS_DEFAULT_SERVICE_CREDENTIAL_NAME); seen 2026-11.
    """
    has = os.environ.get
    named = link.service_credential
    default = has("DATABRICKS_DEFAULT_SERVICE_CREDENTIAL_NAME")
    endpoint = next((name for name in ("IDENTITY_ENDPOINT", "MSI_ENDPOINT") if has(name)), None)
    az = shutil.which("az")
    return [
        Source(
            name="the link's service principal",
            is_configured=link.client_secret is not None,
            why=f"client_secret is {link.client_secret}" if link.client_secret else "no reference",
            make=lambda read: _with_secret(link, _resolved(link.client_secret), read),
        ),
        Source(
            name="the link's service credential",
            is_configured=named is not None,
            why=f"service_credential is {named!r}" if named else "no reference",
            make=lambda read: _service_credential(str(named)),
        ),
        Source(
            name="service principal with a secret",
            why=_said("AZURE_CLIENT_SECRET"),
            is_configured=bool(has("AZURE_CLIENT_SECRET")),
            make=lambda read: _with_secret(link, has("AZURE_CLIENT_SECRET", ""), read),
        ),
        Source(
            name="service principal with a certificate",
            why=_said("AZURE_CLIENT_CERTIFICATE_PATH"),
            is_configured=bool(has("AZURE_CLIENT_CERTIFICATE_PATH")),
            make=lambda read: _with_certificate(link, read),
        ),
        Source(
            name="workload identity",
            why=_said("AZURE_FEDERATED_TOKEN_FILE"),
            is_configured=bool(has("AZURE_FEDERATED_TOKEN_FILE")),
            make=lambda read: _workload(link),
        ),
        Source(
            name="Unity Catalog service credential",
            why=_said("DATABRICKS_DEFAULT_SERVICE_CREDENTIAL_NAME"),
            is_configured=bool(default),
            make=lambda read: _service_credential(str(default)),
        ),
        Source(
            name="managed identity",
            why=_said(endpoint or "IDENTITY_ENDPOINT"),
            is_configured=endpoint is not None,
            make=lambda read: _managed(link),
        ),
        Source(
            name="managed identity of this machine",
            why="tried where nothing is set up",
            is_configured=False,
            is_ambient=True,
            make=lambda read: _of_machine(link),
        ),
        Source(
            name="Azure CLI",
            why="tried where nothing is set up" if az else "no 'az' on the PATH",
            is_configured=False,
            is_ambient=True,
            make=lambda read: _cli(link, az),
        ),
    ]


def tenant_of(link: Link) -> str | None:
    """Return the tenant that the link or a variable names."""
    return link.tenant_id or os.environ.get("AZURE_TENANT_ID")


def cloud_of(link: Link) -> Cloud:
    """Return the hosts of the link's cloud; without a workspace those of AZUREML_CURRENT_CLOUD."""
    if link.aml_workspace is not None:
        return link.aml_workspace.hosts
    return CLOUDS.get(os.environ.get("AZUREML_CURRENT_CLOUD", ""), CLOUDS["AzureCloud"])


def authority_of(link: Link) -> str:
    """Return the host that issues tokens in the link's cloud."""
    return os.environ.get("AZURE_AUTHORITY_HOST") or cloud_of(link).login


def _said(name: str) -> str:
    return f"{name} is set" if os.environ.get(name) else f"{name} is not set"


def _application(link: Link) -> dict[str, Any]:
    """Return who asks: every service principal needs a tenant and an application."""
    tenant_id = tenant_of(link)
    client_id = link.client_id or os.environ.get("AZURE_CLIENT_ID")
    for name, value in (("TENANT_ID", tenant_id), ("CLIENT_ID", client_id)):
        if not value:
            raise LinkError(f"AZURE_{name} must be set too; or set DBX_AML_{name}")
    return {
        "tenant_id": tenant_id,
        "client_id": client_id,
        "authority": authority_of(link),
        # It asks a host of the public cloud that closed networks do not let through.
        "disable_instance_discovery": True,
        **_QUICK,
    }


def _with_secret(link: Link, secret: str, read: set[str]) -> Any:
    from azure.identity import ClientSecretCredential

    read.add(secret)
    return ClientSecretCredential(client_secret=secret, **_application(link))


def _with_certificate(link: Link, read: set[str]) -> Any:
    from azure.identity import CertificateCredential

    password = os.environ.get("AZURE_CLIENT_CERTIFICATE_PASSWORD")
    read.add(password or "")
    path = os.environ["AZURE_CLIENT_CERTIFICATE_PATH"]
    return CertificateCredential(certificate_path=path, password=password, **_application(link))


def _workload(link: Link) -> Any:
    from azure.identity import WorkloadIdentityCredential

    file = os.environ["AZURE_FEDERATED_TOKEN_FILE"]
    return WorkloadIdentityCredential(token_file_path=file, **_application(link))


def _managed(link: Link) -> Any:
    from azure.identity import ManagedIdentityCredential

    client_id = link.client_id or os.environ.get("AZURE_CLIENT_ID")
    return ManagedIdentityCredential(client_id=client_id, **_QUICK)


def _of_machine(link: Link) -> Any:
    host = os.environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST", _IMDS).rstrip("/")
    url = f"{host}/metadata/instance?api-version=2021-02-01"
    request = urllib.request.Request(url, headers={"Metadata": "true"})
    # A proxy would answer for itself.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        direct.open(request, timeout=_IMDS_PROBE_S).close()
    except urllib.error.HTTPError as err:
        why = f"{host} answers {err.code}"
        err.close()
    except OSError:
        why = f"{host} does not answer"
    else:
        return _managed(link)
    raise LinkError(f"none here, {why}")


def _cli(link: Link, az: str | None) -> Any:
    from azure.identity import AzureCliCredential

    if az is None:
        raise LinkError("no 'az' on the PATH")
    return AzureCliCredential(tenant_id=tenant_of(link) or "", process_timeout=_CLI_S)


def _service_credential(name: str) -> Any:
    return _dbutils().credentials.getServiceCredentialsProvider(name)


def _resolved(reference: SecretRef | None) -> str:
    if reference is None:
        return ""
    if reference.env is None:
        found = _dbutils().secrets.get(reference.scope, reference.key)
    else:
        found = os.environ.get(reference.env)
    if not found:
        raise LinkError(f"secret must exist and not be empty: got none at '{reference}'")
    return str(found)


def _dbutils() -> Any:
    """Return the notebook's `dbutils`, or a job's.

    Raises:
        LinkError: This is not Databricks.
    """
    shell = sys.modules.get("IPython")
    user = shell.get_ipython() if shell is not None else None
    for namespace in (vars(sys.modules["__main__"]), getattr(user, "user_ns", {})):
        if "dbutils" in namespace:
            return namespace["dbutils"]
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return importlib.import_module("databricks.sdk.runtime").dbutils
    raise LinkError("it needs dbutils, which is only there on Databricks")
