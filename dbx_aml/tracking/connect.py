"""Apply a link to MLflow: set this process's tracking and registry URI, and restore them later.

Only this module changes MLflow's process-wide state, and the test kit, which restores it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from threading import RLock
from typing import Any

from dbx_aml._common.deadline import time_limit
from dbx_aml._common.environment import set_variables
from dbx_aml._common.errors import LinkError
from dbx_aml._common.http import send_within
from dbx_aml._common.retry import service_policy
from dbx_aml.azure.client import AzureClient
from dbx_aml.azure.credentials import Credential, get_credential
from dbx_aml.azure.identity import Identity
from dbx_aml.azure.workspaces import check_workspace, with_tracking_uri
from dbx_aml.link.clouds import ALLOWED_HOSTS_VARIABLE
from dbx_aml.link.connected_link import connected_link, set_connected_link
from dbx_aml.link.link import Link
from dbx_aml.link.uris import is_databricks_uri, parse_azureml_uri
from dbx_aml.models.mlflow_client import databricks_host
from dbx_aml.models.register_patch import patch_register_model
from dbx_aml.tracking.azureml.job_token import get_tracking_credential
from dbx_aml.tracking.connection import Connection

_CLOUD = "AZUREML_CURRENT_CLOUD"
_RETRY_TIMEOUT = "DBX_AML_RETRY_TIMEOUT_S"
_MODE = "DBX_AML_MODE"
_EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"
_EXPERIMENT_NAME = "MLFLOW_EXPERIMENT_NAME"
_RUN_ID = "MLFLOW_RUN_ID"
_TRACKING_URI = "MLFLOW_TRACKING_URI"
# The variables by which a child process gets the credential of the link; no secret is in them.
_CREDENTIAL_VARIABLES = {
    "tenant_id": "DBX_AML_TENANT_ID",
    "client_id": "DBX_AML_CLIENT_ID",
    "client_secret": "DBX_AML_CLIENT_SECRET",
    "service_credential": "DBX_AML_SERVICE_CREDENTIAL",
}
# Variables that `connect` or MLflow's functions set.
_VARIABLES = (
    _CLOUD,
    _RETRY_TIMEOUT,
    _MODE,
    _EXPERIMENT_ID,
    _RUN_ID,
    _TRACKING_URI,
    *_CREDENTIAL_VARIABLES.values(),
    _EXPERIMENT_NAME,
    "MLFLOW_REGISTRY_URI",
)
# Longest time for all steps together: token, workspace, hosts, experiment.
CONNECT_TIMEOUT_S = 20.0
_lock = RLock()
_connection: Connection | None = None


def connect(
    link: Link | None = None, *, allowed_hosts: Iterable[str] | None = None, **arguments: Any
) -> Connection:
    """Let plain MLflow code of this process track and register as a link says.

    Tracking URI and registry URI are both set, because the default of each depends on the other.
    If MLflow will call Azure ML, a token is requested and the workspace is read first. A wrong
    setting then raises within seconds and changes nothing: all steps together have 20 seconds.

    In mode "dual" MLflow tracks in Databricks, and Azure ML may even be down: each run is marked
    when it is created, a thread of this process mirrors it to Azure ML while it runs, and
    `dbx-aml mirror` mirrors the rest.

    Args:
        link: Link to apply; by default `Link.load(**arguments)`: arguments, variables, file.
        allowed_hosts: Hosts that may get a token as Azure ML's own do, for example
            ["ml.contoso.com"]. By default the hosts of DBX_AML_ALLOWED_HOSTS, which this argument
            sets until the connection ends. No file can allow a host.
        arguments: Values for `Link.load`, for example `mode="aml"`.

    Returns:
        The connection. As a context manager it restores MLflow and the environment at its end. A
        second call with the same link and hosts changes nothing, and its connection restores
        nothing.

    Raises:
        LinkError: The settings contradict each other, or a service refuses them.
        ServiceError: A service gives no answer, or answers with an error.
        WorkspaceError: The workspace cannot exist.
        UntrustedHostError: The workspace's host is neither Azure ML's nor allowed.
        CredentialError: No source gives a token.
    """
    if allowed_hosts is None:
        return _connect(link, arguments, {})
    variables = {ALLOWED_HOSTS_VARIABLE: os.environ.get(ALLOWED_HOSTS_VARIABLE)}
    os.environ[ALLOWED_HOSTS_VARIABLE] = ",".join(allowed_hosts)
    try:
        return _connect(link, arguments, variables)
    except BaseException:
        set_variables(variables)
        raise


def _connect(
    link: Link | None, arguments: dict[str, Any], variables: dict[str, str | None]
) -> Connection:
    """Apply a link as `connect` does.

    Args:
        link: Link to apply; None for that of the arguments.
        arguments: Values for `Link.load`.
        variables: Old values of environment variables, which the end of the connection restores.
    """
    global _connection
    if link is None:
        link = Link.load(**arguments)
    elif arguments:
        raise LinkError(
            f"connect must be given a link or its values: got both, {sorted(arguments)}; "
            "use Link.load for the values"
        )
    with _lock:
        changes_hosts = any(os.environ.get(name) != old for name, old in variables.items())
        if (
            _connection is not None
            and _connection.link == link
            and not changes_hosts
            and _is_applied(_connection)
        ):
            return _connection.borrowed()
        _import_clients(link)
        with time_limit(CONNECT_TIMEOUT_S):
            resolved_link, credential, identity = _verify_link(link)
            uris = (resolved_link.tracking_uri, resolved_link.registry_uri)
            host = next((databricks_host(uri) for uri in uris if is_databricks_uri(uri)), None)
            old_connection = _connection
            restore_state = _apply(resolved_link)

        def restore() -> None:
            global _connection
            with _lock:
                restore_state()
                set_variables(variables)
                _connection = old_connection

        _connection = Connection(
            link=link,
            resolved_link=resolved_link,
            credential=credential,
            identity=identity,
            databricks_host=host,
            restore=restore,
        )
        return _connection


def current_connection() -> Connection | None:
    """Return the connection of the last `connect` that is still open, or None."""
    return _connection


def reset_for_tests() -> None:
    """Forget connection and link; a test's fixture restores MLflow."""
    global _connection
    _connection = None
    set_connected_link(None)


def _verify_link(link: Link) -> tuple[Link, Credential | None, Identity | None]:
    """Return the link with its tracking URI; credential and identity if MLflow calls Azure ML."""
    if not link.calls_azure_ml or link.aml_workspace is None:
        return link, None, None
    credential = get_tracking_credential(link)
    identity = credential.verify()
    workspace = with_tracking_uri(AzureClient(get_credential(link)), link.aml_workspace)
    check_workspace(AzureClient(credential), workspace)
    return replace(link, aml_workspace=workspace, aml_tracking_uri=None), credential, identity


def _import_clients(link: Link) -> None:
    """Import what the services are called with: the time for their answers starts afterwards."""
    import mlflow  # noqa: F401

    if link.uses_azure_ml and link.experiment is not None:
        with suppress(ImportError):
            import_module("dbx_aml.tracking.azureml.store")


def _is_applied(connection: Connection) -> bool:
    import mlflow

    uris = (mlflow.get_tracking_uri(), mlflow.get_registry_uri())
    return uris == (connection.tracking_uri, connection.registry_uri)


def _apply(link: Link) -> Callable[[], None]:
    """Set MLflow's state and the environment; return the function that restores both."""
    import mlflow
    from mlflow.tracking import fluent

    restore = save_mlflow_state()
    try:
        set_connected_link(link)
        experiment_id = fluent._active_experiment_id
        if experiment_id is not None and mlflow.get_tracking_uri() != link.tracking_uri:
            # The active experiment is on another server, as is the variable that MLflow set.
            fluent._active_experiment_id = None
            if os.environ.get(_EXPERIMENT_ID) == experiment_id:
                del os.environ[_EXPERIMENT_ID]
        _remove_run_of_other_server(str(link.tracking_uri))
        if link.mode == "dual":
            # Child processes mark their runs too.
            os.environ[_MODE] = link.mode
        if link.uses_azure_ml and link.aml_workspace is not None:
            # Without this variable azureml-mlflow asks a host of the public cloud, for up to 30 s.
            os.environ[_CLOUD] = link.aml_workspace.cloud
            # The store for Azure ML reads this variable, also in child processes.
            os.environ[_RETRY_TIMEOUT] = f"{link.retry_timeout_s:g}"
            _set_credential_variables(link)
        mlflow.set_tracking_uri(str(link.tracking_uri))
        mlflow.set_registry_uri(str(link.registry_uri))
        if link.uses_azure_ml:
            patch_register_model()
        if link.experiment is not None:
            # MLflow's own retries would wait for minutes.
            with send_within(service_policy(), is_idempotent=True):
                mlflow.set_experiment(link.experiment)
    except BaseException:
        restore()
        raise
    return restore


def _remove_run_of_other_server(tracking_uri: str) -> None:
    """Remove the run and the experiment that variables name, if they are of another server.

    An Azure ML job, a Databricks job and an MLflow project set the three variables.

    Args:
        tracking_uri: Tracking URI that MLflow gets.
    """
    old_uri = os.environ.get(_TRACKING_URI)
    if old_uri is None or _RUN_ID not in os.environ:
        return
    old_workspace, workspace = parse_azureml_uri(old_uri), parse_azureml_uri(tracking_uri)
    if old_workspace is not None and workspace is not None:
        is_same = old_workspace.has_same_names(workspace)
    else:
        is_same = old_uri == tracking_uri
    if not is_same:
        for name in (_RUN_ID, _EXPERIMENT_ID, _EXPERIMENT_NAME):
            os.environ.pop(name, None)


def _set_credential_variables(link: Link) -> None:
    """Let child processes find the credential of the link, by its reference."""
    if not any(getattr(link, field) for field in _CREDENTIAL_VARIABLES):
        return
    values = {
        variable: str(getattr(link, field)) if getattr(link, field) else None
        for field, variable in _CREDENTIAL_VARIABLES.items()
    }
    set_variables(values)


def save_mlflow_state() -> Callable[[], None]:
    """Return a function that restores MLflow's state and the environment as they are now."""
    import mlflow
    from mlflow.tracking import fluent
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as tracking

    link = connected_link()
    variables = {name: os.environ.get(name) for name in _VARIABLES}
    experiment_id = fluent._active_experiment_id
    # MLflow's functions return a default for a URI that was not set; only these variables tell.
    tracking_uri, registry_uri = tracking._tracking_uri, registry._registry_uri

    def restore() -> None:
        mlflow.set_tracking_uri(tracking_uri)  # type: ignore[arg-type]
        mlflow.set_registry_uri(registry_uri)  # type: ignore[arg-type]
        fluent._active_experiment_id = experiment_id
        set_variables(variables)
        set_connected_link(link)

    return restore
