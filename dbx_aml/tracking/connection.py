"""The connection that `connect` returns: its facts for people, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import quote

from dbx_aml._common.html import html_table
from dbx_aml._common.redact import redact
from dbx_aml.azure.credential_sources import tenant_of_link
from dbx_aml.azure.credentials import Credential
from dbx_aml.azure.identity import Identity
from dbx_aml.link.link import Link


def _restore_nothing() -> None:
    """Change nothing."""


class Connection:
    """A link that `connect` has applied to this process.

    Args:
        link: Link as the caller gave it.
        resolved_link: Link with the values that only the services know.
        credential: Credential that Azure ML has accepted; None if MLflow does not call Azure ML.
        identity: Identity of the caller in Azure ML; None as for the credential.
        databricks_host: URL of the Databricks workspace; None if MLflow does not call one.
        restore: Function that restores the state before the connection.
    """

    def __init__(
        self,
        *,
        link: Link,
        resolved_link: Link,
        credential: Credential | None,
        identity: Identity | None,
        databricks_host: str | None = None,
        restore: Callable[[], None] = _restore_nothing,
    ) -> None:
        self.link = link
        self.identity = identity
        self.databricks_host = databricks_host
        self._resolved_link = resolved_link
        self._credential = credential
        self._restore = restore

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI."""
        return str(self._resolved_link.tracking_uri)

    @property
    def registry_uri(self) -> str:
        """MLflow's registry URI."""
        return str(self._resolved_link.registry_uri)

    def to_dict(self) -> dict[str, str]:
        """Return the facts of the connection for people; unknown facts are left out.

        No fact has a secret: a URI is without the password that MLflow's URI may have.
        """
        workspace = self._resolved_link.aml_workspace
        source = self._credential.selected_source() if self._credential else None
        tenant_id = tenant_of_link(self.link)
        tenant = f"&tid={quote(tenant_id, safe='')}" if tenant_id else ""
        facts = {
            "mode": self.link.mode,
            "tracking URI": self.tracking_uri,
            "registry URI": self.registry_uri,
            "experiment": self.link.experiment or "",
            "signed in as": str(self.identity or ""),
            "credential": f"{source.name} ({source.reason})" if source else "",
            "Databricks workspace": self.databricks_host or "",
            "Azure ML studio": f"{workspace.studio_url}{tenant}" if workspace else "",
            "Azure portal": workspace.portal_url if workspace else "",
        }
        return {name: redact(text) for name, text in facts.items() if text}

    def borrowed(self) -> Connection:
        """Return an equal connection whose `close` restores nothing."""
        return Connection(
            link=self.link,
            resolved_link=self._resolved_link,
            credential=self._credential,
            identity=self.identity,
            databricks_host=self.databricks_host,
        )

    def close(self) -> None:
        """Restore MLflow and the environment; a second call changes nothing."""
        restore, self._restore = self._restore, _restore_nothing
        restore()

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
        return f"Connection(mode={self.link.mode!r}, tracking_uri={redact(self.tracking_uri)!r})"

    def _repr_html_(self) -> str:
        return html_table(self.to_dict().items())
