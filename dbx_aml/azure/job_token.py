"""The token with which an Azure ML job calls its own workspace."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from dbx_aml.azure.credential_sources import CredentialSource
from dbx_aml.azure.credentials import Credential, get_credential
from dbx_aml.azure.identity import token_claims
from dbx_aml.link.link import Link
from dbx_aml.link.uris import parse_azureml_uri

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

_TOKEN = "MLFLOW_TRACKING_TOKEN"
_RUNS = ("MLFLOW_RUN_ID", "AZUREML_RUN_ID")
_EXPERIMENTS = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
# Lifetime of a token that does not tell its end.
_DEFAULT_LIFETIME_S = 3600


def has_job_token(tracking_uri: str | None) -> bool:
    """Tell whether this process is a job of a workspace, whose token its variables have.

    Args:
        tracking_uri: Azure ML tracking URI of the workspace.
    """
    workspace = parse_azureml_uri(tracking_uri)
    job_workspace = parse_azureml_uri(os.environ.get("MLFLOW_TRACKING_URI"))
    return (
        workspace is not None
        and job_workspace is not None
        and workspace.has_same_names(job_workspace)
        and bool(os.environ.get(_TOKEN))
        # MLflow removes its variable when it goes on with the run.
        and any(os.environ.get(name) for name in _RUNS)
        and any(os.environ.get(name) for name in _EXPERIMENTS)
    )


def accepts_job_token(link: Link) -> bool:
    """Tell whether a link tracks with the token of a job: Azure ML tracks, no credential is named.

    In the other modes the variables of the job are put aside.
    """
    return link.mode == "aml" and not link.client_secret and not link.service_credential


def get_tracking_credential(link: Link) -> Credential:
    """Return the credential that MLflow's calls to Azure ML use: a job's token, else the link's.

    Azure Resource Manager takes no token of a job.
    """
    if not accepts_job_token(link) or not has_job_token(link.aml_tracking_uri):
        return get_credential(link)
    source = CredentialSource(
        name="Azure ML job",
        is_configured=True,
        reason=f"{_TOKEN} is set",
        create_credential=lambda secrets: _JobCredential(),
    )
    return Credential(link, source)


class _JobCredential:
    """The token in the job's variable, as a credential of azure-identity."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        from azure.core.credentials import AccessToken

        token = os.environ[_TOKEN]
        end = token_claims(token).get("exp", time.time() + _DEFAULT_LIFETIME_S)
        return AccessToken(token, int(end))
