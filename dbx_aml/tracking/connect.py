"""Apply a link to MLflow: point it at a tracking and a registry server, and put it back."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from threading import RLock
from typing import Any

from dbx_aml._common.errors import LinkError
from dbx_aml.azure.client import AzureClient
from dbx_aml.azure.credentials import get_credential
from dbx_aml.azure.identity import Identity
from dbx_aml.azure.workspaces import check_workspace, with_tracking_uri
from dbx_aml.link.link import Link
from dbx_aml.link.uris import is_databricks_uri
from dbx_aml.tracking.connection import Connection
from dbx_aml.tracking.servers import databricks_host

_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
_CLOUD = "AZUREML_CURRENT_CLOUD"
_RETRY_TIMEOUT = "DBX_AML_RETRY_TIMEOUT_S"
_MODE = "DBX_AML_MODE"
_EXPERIMENTS = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
_lock = RLock()
_current: Connection | None = None
_connected_link: Link | None = None


def connected_link() -> Link | None:
    """Return the link that `connect` applied to this process, None if nothing is connected.

    MLflow builds the store for Azure ML from a URI alone: the store finds its credential here.
    """
    return _connected_link


def set_connected_link(link: Link | None) -> Link | None:
    """Set the link that `connected_link` returns; return the one before."""
    global _connected_link
    with _lock:
        before, _connected_link = _connected_link, link
    return before


def reset_for_tests() -> None:
    """Forget the connection without restoring MLflow: a test's fixture does that itself."""
    global _current
    _current = None
    set_connected_link(None)


def connect(link: Link | None = None, **arguments: Any) -> Connection:
    """Let plain MLflow code track and register as a link says, and prove that it can.

    Tracking and registry URI are both set, always: each has a default that depends on the other.
    Where Azure ML is one of the two, a token is got and the workspace is read first, so a wrong
    setting is an error here, within seconds, and changes nothing.

    In mode "dual" MLflow tracks in Databricks. Each run is marked when it is created, a thread of
    this process mirrors it to Azure ML while it goes on, and `dbx-aml mirror` does what that left:
    so Azure ML is not asked here whether it would take it, and may even be down.

    Args:
        link: What to apply. By default `Link.load(**arguments)`: arguments, variables, file.
        arguments: As `Link.load` takes them, for example `mode="aml"`.

    Returns:
        What was set; as a context manager it puts MLflow and the environment back. With the same
        link again nothing is done, and that second one puts nothing back.

    Raises:
        LinkError: The settings contradict each other, or a service refuses them.
        ServiceError: A service does not answer, or with an error.
        WorkspaceError: The workspace cannot exist.
        CredentialError: No source gives a token.
    """
    global _current
    if link is None:
        link = Link.load(**arguments)
    elif arguments:
        raise LinkError(
            f"connect must be given a link or its values: got both, {sorted(arguments)}; "
            "use Link.load for the values"
        )
    with _lock:
        if _current is not None and _current.link == link and _is_applied(_current):
            return _current.again()
        complete, identity = _proved(link)
        uris = (complete.tracking_uri, complete.registry_uri)
        host = next((databricks_host(uri) for uri in uris if is_databricks_uri(uri)), None)
        stack = ExitStack()
        with stack:
            _apply(complete, stack)
            undo = stack.pop_all()
        before = _current

        def close() -> None:
            global _current
            with _lock:
                undo.close()
                _current = before

        _current = Connection(
            link=link, complete=complete, identity=identity, databricks_host=host, undo=close
        )
        return _current


def current_connection() -> Connection | None:
    """Return the connection that `connect` made last and that is still open."""
    return _current


def _proved(link: Link) -> tuple[Link, Identity | None]:
    """Return the link with its tracking URI, and who the caller is, where MLflow will need it."""
    if not link.calls_azure_ml or link.aml_workspace is None:
        return link, None
    credential = get_credential(link)
    identity = credential.verify()
    client = AzureClient(credential)
    workspace = with_tracking_uri(client, link.aml_workspace)
    check_workspace(client, workspace)
    return replace(link, aml_workspace=workspace, aml_tracking_uri=None), identity


def _is_applied(connection: Connection) -> bool:
    import mlflow

    found = (mlflow.get_tracking_uri(), mlflow.get_registry_uri())
    return found == (connection.tracking_uri, connection.registry_uri)


def _apply(link: Link, stack: ExitStack) -> None:
    import mlflow
    from mlflow.tracking import fluent

    stack.callback(set_connected_link, set_connected_link(link))
    names = (_CLOUD, _RETRY_TIMEOUT, _MODE, *_EXPERIMENTS)
    variables = {name: os.environ.get(name) for name in names}
    stack.callback(_put_back, variables)
    experiment_id = fluent._active_experiment_id
    stack.callback(setattr, fluent, "_active_experiment_id", experiment_id)
    if mlflow.get_tracking_uri() != link.tracking_uri and experiment_id is not None:
        # It is another server's, and so is the variable that MLflow set with it.
        fluent._active_experiment_id = None
        if os.environ.get("MLFLOW_EXPERIMENT_ID") == experiment_id:
            del os.environ["MLFLOW_EXPERIMENT_ID"]
    if link.mode == "dual":
        # Processes that this one starts mark their runs as well.
        os.environ[_MODE] = link.mode
    if link.uses_azure_ml and link.aml_workspace is not None:
        # Without it the plugin asks a host of the public cloud first, for up to 30 s.
        os.environ[_CLOUD] = link.aml_workspace.cloud
        # The store for Azure ML reads it, in this process and in those that it starts.
        os.environ[_RETRY_TIMEOUT] = f"{link.retry_timeout_s:g}"
    # Not the context manager: left open, it would put MLflow back while Python shuts down.
    stack.callback(_set_uris(link.tracking_uri, link.registry_uri))
    if link.experiment is not None:
        mlflow.set_experiment(link.experiment)


def _put_back(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _set_uris(tracking_uri: str | None, registry_uri: str | None) -> Callable[[], None]:
    """Set the two that are given; return what puts MLflow's state back."""
    import mlflow
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as tracking

    variables = {name: os.environ.get(name) for name in _VARIABLES}
    # MLflow answers with the resolved URI, never with "none was set": only its own variables
    # tell the two apart.
    old_tracking_uri = tracking._tracking_uri
    old_registry_uri = registry._registry_uri

    def undo() -> None:
        if tracking_uri is not None:
            mlflow.set_tracking_uri(old_tracking_uri)  # type: ignore[arg-type]
        if registry_uri is not None:
            mlflow.set_registry_uri(old_registry_uri)  # type: ignore[arg-type]
        _put_back(variables)

    try:
        if tracking_uri is not None:
            mlflow.set_tracking_uri(tracking_uri)
        if registry_uri is not None:
            mlflow.set_registry_uri(registry_uri)
    except BaseException:
        undo()
        raise
    return undo
