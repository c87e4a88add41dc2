"""Which runs are to be mirrored: a tag in the very request that creates them, in mode "dual".

MLflow finds both classes by entry points and asks the first one at each run that its fluent API or
autologging creates, the second one at each request that it sends. Neither asks a server, and in
another mode both are a look at a variable. `MlflowClient.create_run` asks no context: such runs
are found by `dbx-aml mirror --include-unmarked`.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.tracking.context.abstract_context import RunContextProvider
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

from dbx_aml._common.errors import DbxAmlError
from dbx_aml.link.link import Link
from dbx_aml.link.uris import is_databricks_uri
from dbx_aml.tracking.connect import connected_link

if TYPE_CHECKING:
    from dbx_aml.tracking.mirror.live_mirror import Live

log = logging.getLogger(__name__)
_LOOK_EVERY_S = 2.0
_next_look = 0.0
_live: Live | None = None


def dual_link() -> Link | None:
    """Return the link in force where it is dual and MLflow tracks to its source; else None."""
    link = connected_link() or _found_link(_surroundings())
    if link is None or link.mode != "dual":
        return None
    import mlflow

    uri = mlflow.get_tracking_uri()
    is_source = uri == link.tracking_uri
    return (
        link
        if is_source or (is_databricks_uri(uri) and is_databricks_uri(link.tracking_uri))
        else None
    )


def _surroundings() -> tuple[Any, ...]:
    """Return what decides which link is found, so that it is read again only when that changes."""
    names = ("MLFLOW_TRACKING_URI", "DATABRICKS_RUNTIME_VERSION")
    found = {
        name: text
        for name, text in os.environ.items()
        if name.startswith("DBX_AML_") or name in names
    }
    try:
        folder = str(Path.cwd())
    except OSError:
        # It was removed.
        folder = ""
    return (folder, *sorted(found.items()))


@lru_cache(maxsize=8)
def _found_link(surroundings: tuple[Any, ...]) -> Link | None:
    try:
        return Link.load()
    except DbxAmlError as err:
        if os.environ.get("DBX_AML_MODE") == "dual":
            log.warning("runs are marked, but not mirrored while they run: %s", err)
        return None


def _started() -> Live:
    global _live
    if _live is None:
        from dbx_aml.tracking.mirror.live_mirror import Live

        _live = Live()
    return _live


def _is_marking() -> bool:
    """Tell whether a run that is created now is to be mirrored."""
    if dual_link() is not None:
        return True
    # A worker of a process that is connected, or a link that cannot be read: nothing is lost.
    import mlflow

    return (
        os.environ.get("DBX_AML_MODE") == "dual"
        and connected_link() is None
        and is_databricks_uri(mlflow.get_tracking_uri())
    )


def _at_exit() -> None:
    if _live is not None:
        _live.end()


# MLflow ends the active run at exit. What is registered first is called last, and MLflow imports
# this module before it registers that.
atexit.register(_at_exit)


class MirrorTagProvider(RunContextProvider):
    """Marks each run that is created as one to be mirrored."""

    def in_context(self) -> bool:
        """Tell whether the link in force is dual."""
        return _is_marking()

    def tags(self) -> dict[str, str]:
        """Return the tags of a run that is to be mirrored."""
        from dbx_aml.tracking.mirror import tags as tag

        found = {tag.STATE: tag.PENDING}
        link = dual_link()
        if link is not None:
            found |= _started().expect_run(link)
        return found


class RequestObserver(RequestHeaderProvider):
    """Hears of each request of this process: a run that is resumed creates nothing."""

    def in_context(self) -> bool:
        """Tell that there is no header to add, after taking note."""
        global _next_look
        if _live is not None and _live.is_on:
            _live.stir()
        elif time.monotonic() >= _next_look:
            _next_look = time.monotonic() + _LOOK_EVERY_S
            link = dual_link()
            if link is not None:
                _started().start(link)
        return False

    def request_headers(self) -> dict[str, str]:
        """Return no headers."""
        return {}
