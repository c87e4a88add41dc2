"""The token with which an Azure ML job calls its own workspace: that of azureml-mlflow."""

from __future__ import annotations

import os
from typing import Any

from dbx_aml.azure.credential_sources import CredentialSource
from dbx_aml.azure.credentials import Credential, get_credential
from dbx_aml.link.clouds import check_data_plane_host
from dbx_aml.link.link import Link
from dbx_aml.link.uris import parse_azureml_uri

_TOKEN = "MLFLOW_TRACKING_TOKEN"
_RUNS = ("MLFLOW_RUN_ID", "AZUREML_RUN_ID")
_EXPERIMENTS = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


def has_job_token() -> bool:
    """Tell whether the variables of this process have the token of a job."""
    return bool(os.environ.get(_TOKEN))


def find_job_token(tracking_uri: str | None) -> Any:
    """Return the token of the job of a workspace that runs this process, or None.

    The token has the method `get_token` of a credential, and renews itself.

    Args:
        tracking_uri: Azure ML tracking URI of the workspace.

    Raises:
        UntrustedHostError: The host of the workspace is not Azure ML's.
    """
    if not has_job_token():
        return None
    workspace = parse_azureml_uri(tracking_uri)
    job_workspace = parse_azureml_uri(os.environ.get("MLFLOW_TRACKING_URI"))
    # MLflow removes its variable when it goes on with the run.
    run_id = next(filter(None, map(os.environ.get, _RUNS)), None)
    if (
        workspace is None
        or job_workspace is None
        or not workspace.has_same_names(job_workspace)
        or run_id is None
        or not any(map(os.environ.get, _EXPERIMENTS))
    ):
        return None
    from azureml.mlflow._common._authentication.azureml_token_authentication import (
        AzureMLTokenAuthentication,
    )

    return AzureMLTokenAuthentication.create(
        azureml_access_token=os.environ[_TOKEN],
        expiry_time=None,
        # The token is renewed there.
        host=f"https://{check_data_plane_host(workspace.host)}",
        subscription_id=workspace.subscription_id,
        resource_group_name=workspace.resource_group,
        workspace_name=workspace.name,
        experiment_id=os.environ.get("MLFLOW_EXPERIMENT_ID"),
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME"),
        run_id=run_id,
    )


def accepts_job_token(link: Link) -> bool:
    """Tell whether a link tracks with the token of a job: Azure ML tracks, no credential is named.

    In the other modes the variables of the job are put aside.
    """
    return link.mode == "aml" and not link.client_secret and not link.service_credential


def get_tracking_credential(link: Link) -> Credential:
    """Return the credential that MLflow's calls to Azure ML use: a job's token, else the link's.

    Azure Resource Manager takes no token of a job.

    Raises:
        UntrustedHostError: This process is a job, and its workspace's host is not Azure ML's.
    """
    job_token = find_job_token(link.aml_tracking_uri) if accepts_job_token(link) else None
    if job_token is None:
        return get_credential(link)
    source = CredentialSource(
        name="Azure ML job",
        is_configured=True,
        reason=f"{_TOKEN} is set",
        create_credential=lambda secrets: job_token,
    )
    return Credential(link, source)
