"""What `connect` has set: for people to read, and to put back."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from types import TracebackType
from typing import Self

from dbx_aml.azure.credentials import get_credential
from dbx_aml.azure.identity import Identity
from dbx_aml.link.link import Link


def _nothing() -> None:
    """Put nothing back."""


class Connection:
    """A link in use.

    Args:
        link: As it was given.
        complete: The link with what the services said.
        identity: Who calls Azure ML; None where MLflow does not call it.
        databricks_host: Of the Databricks workspace; None where MLflow does not call one.
        undo: Puts the state before it back.
    """

    def __init__(
        self,
        *,
        link: Link,
        complete: Link,
        identity: Identity | None,
        databricks_host: str | None = None,
        undo: Callable[[], None] = _nothing,
    ) -> None:
        self.link = link
        self.identity = identity
        self.databricks_host = databricks_host
        self._complete = complete
        self._undo = undo

    @property
    def tracking_uri(self) -> str:
        """Where MLflow tracks."""
        return str(self._complete.tracking_uri)

    @property
    def registry_uri(self) -> str:
        """Where MLflow registers."""
        return str(self._complete.registry_uri)

    def to_dict(self) -> dict[str, str]:
        """What there is to say, by its name; what is not known is left out."""
        workspace = self._complete.aml_workspace
        found = {
            "mode": self.link.mode,
            "tracking URI": self.tracking_uri,
            "registry URI": self.registry_uri,
            "experiment": self.link.experiment or "",
            "signed in as": str(self.identity or ""),
            "credential": "",
            "Databricks workspace": self.databricks_host or "",
            "Azure ML studio": workspace.studio_url if workspace else "",
            "Azure portal": workspace.portal_url if workspace else "",
        }
        if self.identity is not None:
            source = get_credential(self.link).selected_source()
            found["credential"] = f"{source.name} ({source.reason})" if source else ""
        return {name: text for name, text in found.items() if text}

    def again(self) -> Connection:
        """Return the same for a second caller, who must not put back what the first one set."""
        return Connection(
            link=self.link,
            complete=self._complete,
            identity=self.identity,
            databricks_host=self.databricks_host,
        )

    def close(self) -> None:
        """Put MLflow and the environment back as they were before; a second time does nothing."""
        undo, self._undo = self._undo, _nothing
        undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __str__(self) -> str:
        facts = self.to_dict()
        width = max(map(len, facts))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in facts.items())

    def __repr__(self) -> str:
        return f"Connection(mode={self.link.mode!r}, tracking_uri={self.tracking_uri!r})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{_cell(text)}</td></tr>"
            for name, text in self.to_dict().items()
        )
        return f"<table>{rows}</table>"


def _cell(text: str) -> str:
    shown = escape(text)
    return f"<a href='{shown}'>{shown}</a>" if text.startswith("https://") else shown
