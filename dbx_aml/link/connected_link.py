"""The link that `connect` applied to this process: the only process-wide setting of this package.

MLflow builds a store from a URI alone. The stores for Azure ML take their credential from this
link, and calls about models find the other registry in it.
"""

from __future__ import annotations

from dbx_aml.link.link import Link

_link: Link | None = None


def connected_link() -> Link | None:
    """Return the link that `connect` applied to this process, or None."""
    return _link


def current_link() -> Link:
    """Return the connected link, else the link of variables and files."""
    return _link or Link.load()


def set_connected_link(link: Link | None) -> None:
    """Set the link that `connected_link` returns."""
    global _link
    _link = link


def reset_for_tests() -> None:
    """Forget the link."""
    set_connected_link(None)
