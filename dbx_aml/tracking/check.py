"""Prove a link step by step: token, host, workspace, permission. Reads only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dbx_aml._common.errors import DbxAmlError
from dbx_aml.azure.credentials import credential
from dbx_aml.azure.workspaces import check_permission, reach, read_workspace, with_tracking_uri
from dbx_aml.link.link import Link
from dbx_aml.link.uris import is_azureml_uri
from dbx_aml.link.workspace import AmlWorkspace
from dbx_aml.tracking.servers import check_tracking_server

_STEP_S = 5.0
_WHOLE_S = 14.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """One step and how it went.

    Args:
        name: For example "token".
        is_good: Whether it went well.
        said: What was found, or what is wrong.
        seconds: How long it took.
    """

    name: str
    is_good: bool
    said: str
    seconds: float


def check_link(link: Link) -> Iterator[Check]:
    """Yield each step of a link's proof; the first that fails is the last.

    Within 15 seconds in all, even where no host answers at all.

    Args:
        link: Both sides that it names are looked at, also in mode "dual".
    """
    end = time.monotonic() + _WHOLE_S
    for name, step in _steps(link):
        started = time.monotonic()
        try:
            said, is_good = step(max(0.1, min(_STEP_S, end - started))), True
        except DbxAmlError as err:
            said, is_good = str(err), False
        yield Check(
            name=name,
            is_good=is_good,
            said=said,
            seconds=round(time.monotonic() - started, 3),
        )
        if not is_good:
            return


def _steps(link: Link) -> Iterator[tuple[str, Callable[[float], str]]]:
    uris = [link.aml_tracking_uri] if link.uses_azure_ml else []
    if link.mode != "aml" or link.registry != "aml":
        uris.append(link.databricks_tracking_uri)
    for uri in uris:
        if link.aml_workspace is not None and (uri is None or is_azureml_uri(uri)):
            yield from _azureml_steps(link, link.aml_workspace)
        elif uri is not None and uri.partition(":")[0] in ("databricks", "http", "https"):
            yield "server", lambda seconds, uri=uri: check_tracking_server(uri, seconds)  # type: ignore[misc]
        else:
            # To open a database would make it where there is none.
            yield "server", lambda seconds, uri=uri: f"{uri} is on this machine"  # type: ignore[misc]


def _azureml_steps(
    link: Link, workspace: AmlWorkspace
) -> Iterator[tuple[str, Callable[[float], str]]]:
    proof = credential(link)
    known = [workspace]

    def token(seconds: float) -> str:
        who = proof.verify(seconds)
        chosen = ", ".join(f"{one.name}: {one.why}" for one in proof.describe() if one.is_chosen)
        return f"{who}; {chosen}"

    def host(seconds: float) -> str:
        known[0] = with_tracking_uri(workspace, proof, seconds)
        return reach(known[0], seconds)

    def exists(seconds: float) -> str:
        read_workspace(known[0], proof, seconds)
        return f"{workspace.workspace_name} in {workspace.resource_group}"

    def permission(seconds: float) -> str:
        check_permission(known[0], proof, seconds)
        return "may create runs"

    yield from [
        ("token", token),
        ("host", host),
        ("workspace", exists),
        ("permission", permission),
    ]
