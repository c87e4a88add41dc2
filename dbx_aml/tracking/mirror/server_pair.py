"""The two sides of a link: which is the source, and do both answer."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from dbx_aml._common.errors import MirrorError
from dbx_aml.azure.credentials import credential
from dbx_aml.azure.workspaces import read_workspace, with_tracking_uri
from dbx_aml.link.link import Link
from dbx_aml.link.uris import is_azureml_uri, is_databricks_uri
from dbx_aml.link.workspace import AmlWorkspace
from dbx_aml.tracking.mirror.server import Side
from dbx_aml.tracking.servers import check_tracking_server

_ANSWER_S = 10.0
_ASKED = ("databricks", "http", "https")


def sides(
    link: Link,
    *,
    source_tracking_uri: str | None = None,
    destination_tracking_uri: str | None = None,
) -> tuple[Side, Side]:
    """Return source and destination: Databricks and Azure ML, or the other way in mode "aml".

    Args:
        link: Says where the two are, and by its mode which of them tracks.
        source_tracking_uri: Instead of the link's.
        destination_tracking_uri: Instead of the link's.

    Raises:
        MirrorError: The link has only one side.
        LinkError: Azure Resource Manager does not tell the workspace's tracking URI.
    """
    is_back = link.mode == "aml"
    if source_tracking_uri or destination_tracking_uri:
        is_back = is_azureml_uri(source_tracking_uri) or is_databricks_uri(destination_tracking_uri)
    names = ("aml", "databricks") if is_back else ("databricks", "aml")
    given = (source_tracking_uri, destination_tracking_uri)
    src, dst = (uri or _uri(link, name) for name, uri in zip(names, given, strict=True))
    if src == dst:
        raise MirrorError(
            f"source and destination must be two servers: got {src!r} for both; give one of them "
            "with --source-tracking-uri or --destination-tracking-uri"
        )
    return Side(src, names[0]), Side(dst, names[1])


def _uri(link: Link, name: str) -> str:
    if name == "databricks":
        return link.databricks_tracking_uri
    if link.aml_tracking_uri is not None:
        return link.aml_tracking_uri
    if link.aml_workspace is None:
        raise MirrorError(
            "link must name an Azure ML workspace: got none; set DBX_AML_CONFIG to the "
            "workspace's config.json, or give --destination-tracking-uri"
        )
    return str(with_tracking_uri(link.aml_workspace, credential(link)).tracking_uri)


def prove(side: Side, link: Link) -> None:
    """Ask a side for one experiment, within seconds.

    Raises:
        LinkError: It does not answer, or does not let the caller read.
        CredentialError: No source gives a token.
    """
    if side.is_azureml:
        workspace = AmlWorkspace.from_tracking_uri(side.tracking_uri)
        read_workspace(workspace, credential(link))
    elif side.tracking_uri.partition(":")[0] in _ASKED:
        if side.is_databricks:
            # The deadline is for the host's answer, not the import of its SDK.
            with suppress(ImportError):
                import_module("databricks.sdk")
        check_tracking_server(side.tracking_uri, _ANSWER_S)
