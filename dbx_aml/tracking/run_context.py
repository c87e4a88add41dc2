"""The tag that marks a run to be mirrored, in the request that creates the run, in mode "dual".

MLflow loads both classes by their entry points. It asks `MirrorTagProvider` at each run that its
fluent API or autologging creates, and `RequestObserver` at each request that it sends. Neither
calls a server, and in another mode both only read environment variables. `MlflowClient.create_run`,
by which Ray Tune, Optuna and MLflow projects create runs, asks no provider, so it is patched here.
"""

from __future__ import annotations

import atexit
import os
import time
from functools import lru_cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.tracking._tracking_service.client import TrackingServiceClient
from mlflow.tracking.context.abstract_context import RunContextProvider
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

from dbx_aml._common.errors import DbxAmlError
from dbx_aml._common.log import get_logger
from dbx_aml.link.connected_link import connected_link
from dbx_aml.link.link import Link
from dbx_aml.link.uris import is_databricks_uri

if TYPE_CHECKING:
    from mlflow.entities import Run

    from dbx_aml.tracking.mirror.live_mirror import LiveMirror

log = get_logger(__name__)
_LINK_CHECK_INTERVAL_S = 2.0
# As in `dbx_aml.tracking.mirror.tags`, which is imported only in mode "dual".
_STATUS_TAG = "dbx_aml.mirror"
_next_link_check = 0.0
_live_mirror: LiveMirror | None = None


def find_dual_link() -> Link | None:
    """Return the link of this process, if its mode is "dual" and MLflow tracks to its source.

    The link is the connected link, else the link that environment variables and files describe.
    """
    link = connected_link() or _link_from_environment(_environment_key())
    if link is None or link.mode != "dual":
        return None
    import mlflow

    uri = mlflow.get_tracking_uri()
    is_databricks = is_databricks_uri(uri) and is_databricks_uri(link.tracking_uri)
    return link if is_databricks or uri == link.tracking_uri else None


def current_live_mirror() -> LiveMirror | None:
    """Return the live mirror of this process, or None before the first run to be mirrored."""
    return _live_mirror


def reset_for_tests() -> None:
    """Stop the live mirror and forget it."""
    global _live_mirror, _next_link_check
    if _live_mirror is not None:
        _live_mirror.stop()
    _live_mirror, _next_link_check = None, 0.0


def _environment_key() -> tuple[str, ...]:
    """Return everything that decides which link is loaded; the cached link depends on it."""
    names = ("MLFLOW_TRACKING_URI", "DATABRICKS_RUNTIME_VERSION")
    variables = sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith("DBX_AML_") or name in names
    )
    try:
        folder = str(Path.cwd())
    except OSError:
        # Another process has removed the current folder.
        folder = ""
    return (folder, *variables)


@lru_cache(maxsize=8)
def _link_from_environment(environment_key: tuple[str, ...]) -> Link | None:
    try:
        return Link.load()
    except DbxAmlError as err:
        if os.environ.get("DBX_AML_MODE") == "dual":
            log.warning("runs are marked, but not mirrored while they run: %s", err)
        return None


def _get_live_mirror() -> LiveMirror:
    global _live_mirror
    if _live_mirror is None:
        from dbx_aml.tracking.mirror.live_mirror import LiveMirror

        _live_mirror = LiveMirror()
    return _live_mirror


def _marks_runs() -> bool:
    """Tell whether a run that is created now is marked to be mirrored."""
    if find_dual_link() is not None:
        return True
    # A run is marked also if no link can be loaded, so that it is mirrored later: a child process
    # of a connected process has the mode, but may lack the workspace.
    import mlflow

    return (
        os.environ.get("DBX_AML_MODE") == "dual"
        and connected_link() is None
        and is_databricks_uri(mlflow.get_tracking_uri())
    )


def _stop_at_exit() -> None:
    if _live_mirror is not None:
        _live_mirror.stop()


# The function that is registered first runs last. MLflow imports this module before it registers
# its own function, which ends the active run.
atexit.register(_stop_at_exit)


def _tags_of_new_run(experiment_id: str | None = None) -> dict[str, str]:
    from dbx_aml.tracking.mirror import tags

    run_tags = {tags.STATUS: tags.PENDING}
    link = find_dual_link()
    if link is not None:
        run_tags |= _get_live_mirror().expect_run(link, experiment_id)
    return run_tags


class MirrorTagProvider(RunContextProvider):
    """Marks each run that MLflow creates as pending for the mirror."""

    def in_context(self) -> bool:
        """Tell whether runs are marked."""
        return _marks_runs()

    def tags(self) -> dict[str, str]:
        """Return the tags for a run that is about to be created."""
        return _tags_of_new_run()


def mark_client_runs() -> None:
    """Let `MlflowClient.create_run` mark its run, where the client tracks to the link's source."""
    create_run = TrackingServiceClient.create_run

    @wraps(create_run)
    def create_marked_run(
        client: TrackingServiceClient,
        experiment_id: str,
        start_time: int | None = None,
        tags: dict[str, Any] | None = None,
        run_name: str | None = None,
    ) -> Run:
        import mlflow

        run_tags = dict(tags or {})
        # The fluent API has asked the provider already.
        if _STATUS_TAG not in run_tags and client.tracking_uri == mlflow.get_tracking_uri():
            run_tags |= _tags_of_new_run(experiment_id) if _marks_runs() else {}
        run: Run = create_run(client, experiment_id, start_time, run_tags, run_name)
        return run

    TrackingServiceClient.create_run = create_marked_run  # type: ignore[assignment,method-assign]


# MLflow imports this module while it is imported itself, before a program can create a run.
mark_client_runs()


class RequestObserver(RequestHeaderProvider):
    """Tells the live mirror of each request of this process; a resumed run creates no run."""

    def in_context(self) -> bool:
        """Notify the live mirror; return False, because there is no header to add."""
        global _next_link_check
        if _live_mirror is not None and _live_mirror.is_running:
            _live_mirror.notify_request()
        elif time.monotonic() >= _next_link_check:
            _next_link_check = time.monotonic() + _LINK_CHECK_INTERVAL_S
            link = find_dual_link()
            if link is not None:
                _get_live_mirror().start(link)
        return False

    def request_headers(self) -> dict[str, str]:
        """Return no headers."""
        return {}
