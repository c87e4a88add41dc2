"""The link that `connect` applied to this process: the only process-wide setting of this package.

MLflow builds a store from a URI alone. The stores for Azure ML take their credential from this
link, and calls about models find the other registry in it. A call with the argument `link` uses
that link instead, until the call ends: see `use_link`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import unquote

from dbx_aml.link.link import Link

_link: Link | None = None
_link_of_call: ContextVar[Link | None] = ContextVar("link_of_call", default=None)
# Links of the calls that run now, the newest last.
_used_links: list[Link] = []


def connected_link() -> Link | None:
    """Return the link of the running call, else the one that `connect` applied, or None."""
    return _link_of_call.get() or _link


def current_link() -> Link:
    """Return the connected link, else the link of variables and files."""
    return connected_link() or Link.load()


def link_of_workspace(uri: str | None) -> Link | None:
    """Return the link whose credential calls a workspace, or None.

    MLflow starts threads for downloads. In such a thread the newest running call with the workspace
    decides.

    Args:
        uri: Tracking URI that ends with the ARM id of the workspace; None for a registry of
            several workspaces.
    """
    candidates = (_link_of_call.get(), *reversed(_used_links))
    links = (link for link in candidates if link is not None and _has_workspace(link, uri))
    return next(links, _link)


@contextmanager
def use_link(link: Link) -> Iterator[None]:
    """Let the calls in a block use a link, and MLflow's stores its credential.

    Another thread keeps its link. MLflow's calls of that thread to the same workspace have the
    credential of the newest block, until the block ends.
    """
    token = _link_of_call.set(link)
    _used_links.append(link)
    try:
        yield
    finally:
        # The same link may be there more than once.
        _used_links.remove(link)
        _link_of_call.reset(token)


def _has_workspace(link: Link, uri: str | None) -> bool:
    if uri is None:
        return True
    arm_id = link.aml_workspace.arm_id if link.aml_workspace else None
    return arm_id is not None and unquote(uri).lower().endswith(arm_id.lower())


def set_connected_link(link: Link | None) -> None:
    """Set the link that `connected_link` returns."""
    global _link
    _link = link


def reset_for_tests() -> None:
    """Forget the link."""
    set_connected_link(None)
