"""The sources of a token for Azure, in the order in which they count; none is interactive."""

import importlib
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dbx_aml._common.errors import LinkError, ServiceUnavailableError
from dbx_aml._common.http import send
from dbx_aml._common.retry import RetryPolicy
from dbx_aml.link.clouds import CLOUDS, Cloud
from dbx_aml.link.link import Link
from dbx_aml.link.secret_reference import SecretRef

# Timeouts of azure-identity's clients; `Credential` bounds the whole request.
_CLIENT_TIMEOUTS: dict[str, Any] = {
    "connection_timeout": 3,
    "read_timeout": 5,
    "retry_total": 2,
    "retry_backoff_factor": 0.2,
}
_CLIENT_MODULES = ("azure.identity", "azure.core.pipeline.transport", "msal", "requests")
# Azure Instance Metadata Service: it gives the tokens of a virtual machine's managed identity.
_IMDS = "http://169.254.169.254"
_IMDS_POLICY = RetryPolicy(timeout_s=1.0, max_attempts=1)
_AZURE_CLI_TIMEOUT_S = 5
# Every variable that this module reads: a credential is valid for one set of their values.
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
class CredentialSource:
    """A source of tokens.

    Args:
        name: Name for people, for example "managed identity".
        is_configured: Whether a setting names this source. Only the first configured source is
            used: after an error of it, another source would be another identity.
        reason: Setting that decides, for example "AZURE_CLIENT_SECRET is set".
        is_ambient: Whether the source needs no setting. Ambient sources are tried in turn, if no
            source is configured.
        is_selected: Whether the tokens come from this source.
        create_credential: Function that returns azure-identity's credential. It adds the secrets
            that it reads to the set that it is given.
    """

    name: str
    is_configured: bool
    reason: str
    is_ambient: bool = False
    is_selected: bool = False
    create_credential: Callable[[set[str]], Any] = field(repr=False, compare=False)


def credential_sources(link: Link) -> list[CredentialSource]:
    """Return all sources in the order in which they count.

    Args:
        link: Link whose references to secrets count before the environment's variables.

    Source:
        Microsoft Learn, "Credential chains in the Azure Identity client library for Python"
        (variables), and "Manage access to external cloud services using service credentials" of
        Azure Databricks (DATABRICKS_DEFAULT_SERVICE_CREDENTIAL_NAME); seen 2026-11.
    """
    environment = os.environ.get
    link_credential = link.service_credential
    default_credential = environment("DATABRICKS_DEFAULT_SERVICE_CREDENTIAL_NAME")
    endpoints = ("IDENTITY_ENDPOINT", "MSI_ENDPOINT")
    endpoint = next((name for name in endpoints if environment(name)), None)
    azure_cli = shutil.which("az")
    return [
        CredentialSource(
            name="the link's service principal",
            is_configured=link.client_secret is not None,
            reason=(
                f"client_secret is {link.client_secret}" if link.client_secret else "no reference"
            ),
            create_credential=lambda secrets: _secret_credential(
                link, resolve_secret(link.client_secret), secrets
            ),
        ),
        CredentialSource(
            name="the link's service credential",
            is_configured=link_credential is not None,
            reason=f"service_credential is {link_credential!r}"
            if link_credential
            else "no reference",
            create_credential=lambda secrets: _service_credential(str(link_credential)),
        ),
        CredentialSource(
            name="service principal with a secret",
            reason=_variable_state("AZURE_CLIENT_SECRET"),
            is_configured=bool(environment("AZURE_CLIENT_SECRET")),
            create_credential=lambda secrets: _secret_credential(
                link, environment("AZURE_CLIENT_SECRET", ""), secrets
            ),
        ),
        CredentialSource(
            name="service principal with a certificate",
            reason=_variable_state("AZURE_CLIENT_CERTIFICATE_PATH"),
            is_configured=bool(environment("AZURE_CLIENT_CERTIFICATE_PATH")),
            create_credential=lambda secrets: _certificate_credential(link, secrets),
        ),
        CredentialSource(
            name="workload identity",
            reason=_variable_state("AZURE_FEDERATED_TOKEN_FILE"),
            is_configured=bool(environment("AZURE_FEDERATED_TOKEN_FILE")),
            create_credential=lambda secrets: _workload_credential(link),
        ),
        CredentialSource(
            name="Unity Catalog service credential",
            reason=_variable_state("DATABRICKS_DEFAULT_SERVICE_CREDENTIAL_NAME"),
            is_configured=bool(default_credential),
            create_credential=lambda secrets: _service_credential(str(default_credential)),
        ),
        CredentialSource(
            name="managed identity",
            reason=_variable_state(endpoint or "IDENTITY_ENDPOINT"),
            is_configured=endpoint is not None,
            create_credential=lambda secrets: _managed_credential(link),
        ),
        CredentialSource(
            name="managed identity of this machine",
            reason="tried if no source is configured",
            is_configured=False,
            is_ambient=True,
            create_credential=lambda secrets: _imds_credential(link),
        ),
        CredentialSource(
            name="Azure CLI",
            reason="tried if no source is configured" if azure_cli else "no 'az' on the PATH",
            is_configured=False,
            is_ambient=True,
            create_credential=lambda secrets: _cli_credential(link, azure_cli),
        ),
    ]


def import_client_modules() -> None:
    """Import what requests a token: on a busy machine that alone may take longer than the token."""
    for module in _CLIENT_MODULES:
        # On Databricks a service credential needs none of them.
        with suppress(ImportError):
            importlib.import_module(module)


def tenant_of_link(link: Link) -> str | None:
    """Return the tenant of the link; without one, the tenant in AZURE_TENANT_ID."""
    return link.tenant_id or os.environ.get("AZURE_TENANT_ID")


def cloud_of_link(link: Link) -> Cloud:
    """Return the hosts of the workspace's cloud, else of the cloud in AZUREML_CURRENT_CLOUD."""
    if link.aml_workspace is not None:
        return link.aml_workspace.hosts
    return CLOUDS.get(os.environ.get("AZUREML_CURRENT_CLOUD", ""), CLOUDS["AzureCloud"])


def authority_host(link: Link) -> str:
    """Return the host that issues the tokens: AZURE_AUTHORITY_HOST, else the cloud's."""
    return os.environ.get("AZURE_AUTHORITY_HOST") or cloud_of_link(link).login


def resolve_secret(reference: SecretRef | None) -> str:
    """Return the secret that a reference names, "" without a reference.

    Raises:
        LinkError: There is no such secret, or it is a Databricks secret and this process does not
            run on Databricks.
    """
    if reference is None:
        return ""
    if reference.env is None:
        secret = _dbutils().secrets.get(reference.scope, reference.key)
    else:
        secret = os.environ.get(reference.env)
    if not secret:
        raise LinkError(
            f"secret must exist and not be empty: got none at '{reference}'; set it, or correct "
            "the reference"
        )
    return str(secret)


def _variable_state(name: str) -> str:
    return f"{name} is set" if os.environ.get(name) else f"{name} is not set"


def _application_settings(link: Link) -> dict[str, Any]:
    """Return the settings that each kind of service principal needs."""
    tenant_id = tenant_of_link(link)
    client_id = link.client_id or os.environ.get("AZURE_CLIENT_ID")
    for name, value in (("TENANT_ID", tenant_id), ("CLIENT_ID", client_id)):
        if not value:
            raise LinkError(f"AZURE_{name} must be set too; or set DBX_AML_{name}")
    return {
        "tenant_id": tenant_id,
        "client_id": client_id,
        "authority": authority_host(link),
        # The discovery asks a host of the public cloud that closed networks do not let through.
        "disable_instance_discovery": True,
        **_CLIENT_TIMEOUTS,
    }


def _secret_credential(link: Link, secret: str, secrets: set[str]) -> Any:
    from azure.identity import ClientSecretCredential

    secrets.add(secret)
    return ClientSecretCredential(client_secret=secret, **_application_settings(link))


def _certificate_credential(link: Link, secrets: set[str]) -> Any:
    from azure.identity import CertificateCredential

    password = os.environ.get("AZURE_CLIENT_CERTIFICATE_PASSWORD")
    secrets.add(password or "")
    path = os.environ["AZURE_CLIENT_CERTIFICATE_PATH"]
    settings = _application_settings(link)
    return CertificateCredential(certificate_path=path, password=password, **settings)


def _workload_credential(link: Link) -> Any:
    from azure.identity import WorkloadIdentityCredential

    file = os.environ["AZURE_FEDERATED_TOKEN_FILE"]
    return WorkloadIdentityCredential(token_file_path=file, **_application_settings(link))


def _managed_credential(link: Link) -> Any:
    from azure.identity import ManagedIdentityCredential

    client_id = link.client_id or os.environ.get("AZURE_CLIENT_ID")
    return ManagedIdentityCredential(client_id=client_id, **_CLIENT_TIMEOUTS)


def _imds_credential(link: Link) -> Any:
    host = os.environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST", _IMDS).rstrip("/")
    url = f"{host}/metadata/instance?api-version=2021-02-01"
    try:
        # A proxy would answer with its own machine's metadata.
        response = send("GET", url, _IMDS_POLICY, headers={"Metadata": "true"}, use_proxy=False)
    except ServiceUnavailableError:
        reason = f"{host} does not answer"
    else:
        if response.status_code < 400:
            return _managed_credential(link)
        reason = f"{host} answers {response.status_code}"
    raise LinkError(f"none here, {reason}")


def _cli_credential(link: Link, azure_cli: str | None) -> Any:
    from azure.identity import AzureCliCredential

    if azure_cli is None:
        raise LinkError("no 'az' on the PATH")
    return AzureCliCredential(
        tenant_id=tenant_of_link(link) or "", process_timeout=_AZURE_CLI_TIMEOUT_S
    )


def _service_credential(name: str) -> Any:
    return _dbutils().credentials.getServiceCredentialsProvider(name)


def _dbutils() -> Any:
    """Return the `dbutils` of the notebook, or of a Python job on Databricks.

    Raises:
        LinkError: This process does not run on Databricks.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    for namespace in (vars(sys.modules["__main__"]), getattr(shell, "user_ns", {})):
        if "dbutils" in namespace:
            return namespace["dbutils"]
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return importlib.import_module("databricks.sdk.runtime").dbutils
    raise LinkError("it needs dbutils, which exists only on Databricks")
