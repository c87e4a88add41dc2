"""What Azure ML and Azure Resource Manager say of a workspace: reads only, each with a bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dbx_aml._common.deadline import call_within
from dbx_aml._common.errors import LinkError
from dbx_aml.azure.credentials import Credential
from dbx_aml.link.workspace import AmlWorkspace

if TYPE_CHECKING:
    from requests import Response

LIMIT_S = 5.0
_PROVIDER = "Microsoft.MachineLearningServices/workspaces"
CREATE_RUNS = "create runs"
# What callers want to do, and what Azure calls it. Source: Azure resource provider operations of
# Microsoft.MachineLearningServices; seen 2026-11.
ACTIONS = {
    CREATE_RUNS: f"{_PROVIDER}/experiments/runs/write",
    "write artifacts": f"{_PROVIDER}/metadata/artifacts/write",
    "register models": f"{_PROVIDER}/models/write",
    "deploy endpoints": f"{_PROVIDER}/onlineEndpoints/deployments/write",
}
_WORKSPACE_VERSION = "2024-10-01"
_PERMISSIONS_VERSION = "2022-04-01"


def reach(workspace: AmlWorkspace, seconds: float = LIMIT_S) -> str:
    """Return the host of the workspace's tracking server, which answers.

    Raises:
        LinkError: It does not within these seconds.
    """
    host = urlsplit(workspace.tracking_uri or "").netloc
    asked("GET", f"https://{host}/", seconds)
    return host


def read_workspace(
    workspace: AmlWorkspace, credential: Credential, seconds: float = LIMIT_S
) -> None:
    """Search the workspace's experiments for one, as the first call of any run would.

    Raises:
        LinkError: There is no such workspace, the caller may not read it, or nothing answers.
    """
    host = urlsplit(workspace.tracking_uri or "").netloc
    url = f"https://{host}/mlflow/v2.0{workspace.arm_id}/api/2.0/mlflow/experiments/search"
    _told("POST", url, workspace, credential, seconds, {"max_results": 1})


def read_properties(
    workspace: AmlWorkspace, credential: Credential, seconds: float = LIMIT_S
) -> dict[str, Any]:
    """Return what Azure Resource Manager says of the workspace, for example its storage account.

    Raises:
        LinkError: There is no such workspace, the caller may not read it, or nothing answers.
    """
    url = f"https://{workspace.hosts.arm}{workspace.arm_id}?api-version={_WORKSPACE_VERSION}"
    return dict(_told("GET", url, workspace, credential, seconds).get("properties") or {})


def with_tracking_uri(
    workspace: AmlWorkspace, credential: Credential, seconds: float = LIMIT_S
) -> AmlWorkspace:
    """Return the workspace with the tracking URI that Azure Resource Manager has for it.

    Raises:
        LinkError: There is no such workspace, the caller may not read it, or nothing answers.
    """
    if workspace.tracking_uri is not None:
        return workspace
    uri = read_properties(workspace, credential, seconds).get("mlFlowTrackingUri")
    if not uri:
        raise LinkError(
            f"workspace {workspace.workspace_name!r} must have a tracking URI: got none; "
            "set DBX_AML_REGION or DBX_AML_AML_TRACKING_URI"
        )
    return replace(workspace, tracking_uri=uri)


def check_permission(
    workspace: AmlWorkspace, credential: Credential, seconds: float = LIMIT_S
) -> None:
    """Look up whether the caller's roles let it create runs.

    Raises:
        LinkError: They do not, or nothing answers.
    """
    if not permissions(workspace, credential, seconds)[CREATE_RUNS]:
        raise LinkError(
            f"caller must be allowed to create runs: got roles without {ACTIONS[CREATE_RUNS]!r}; "
            f"ask for the role 'AzureML Data Scientist' on workspace {workspace.workspace_name!r}"
        )


def permissions(
    workspace: AmlWorkspace, credential: Credential, seconds: float = LIMIT_S
) -> dict[str, bool]:
    """Return which of `ACTIONS` the caller's roles let it do; nothing is tried.

    Raises:
        LinkError: Nothing answers, or the caller may not even ask.

    Source:
        Azure REST API, "Permissions - List For Resource"; Microsoft Learn, "Manage access to an
        Azure Machine Learning workspace"; seen 2026-11.
    """
    url = (
        f"https://{workspace.hosts.arm}{workspace.arm_id}/providers/Microsoft.Authorization"
        f"/permissions?api-version={_PERMISSIONS_VERSION}"
    )
    roles = _told("GET", url, workspace, credential, seconds).get("value") or []
    return {name: any(_allows(role, one) for role in roles) for name, one in ACTIONS.items()}


def _allows(role: Mapping[str, Any], action: str) -> bool:
    given, taken = (
        any(fnmatchcase(action.lower(), str(pattern).lower()) for pattern in role.get(name) or [])
        for name in ("actions", "notActions")
    )
    return given and not taken


def _told(
    method: str,
    url: str,
    workspace: AmlWorkspace,
    credential: Credential,
    seconds: float,
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a host answers to a caller with a token."""
    headers = {"Authorization": f"Bearer {credential.get_token(credential.scope).token}"}
    answer = asked(method, url, seconds, headers=headers, body=body)
    host, status = urlsplit(url).netloc, answer.status_code
    if status < 400:
        return dict(answer.json())
    code, message = _error_of(answer)
    said = f"got {status} {code} from {host}: {message}"
    if status == 404:
        raise LinkError(
            f"workspace {workspace.workspace_name!r} must exist in resource group "
            f"{workspace.resource_group!r} of subscription {workspace.subscription_id!r}: {said}; "
            "compare with the workspace's page in the portal"
        )
    if status == 403:
        raise LinkError(
            f"caller must be allowed to use workspace {workspace.workspace_name!r}: {said}; "
            "ask for the role 'AzureML Data Scientist'"
        )
    if status == 401:
        raise LinkError(f"{host} must take the token: {said}; is its tenant the workspace's")
    raise LinkError(f"{host} must answer: {said}; try again later")


def asked(
    method: str,
    url: str,
    seconds: float,
    *,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> Response:
    """Return what a host answers, whatever its status.

    Raises:
        LinkError: Nothing within these seconds.
    """
    import requests

    host = urlsplit(url).netloc

    def call() -> Response:
        with requests.Session() as session:
            # A .netrc would put its own in the place of our header.
            session.auth = keep_headers
            return session.request(
                method, url, headers=dict(headers or {}), json=body, timeout=seconds
            )

    try:
        return call_within(call, seconds)
    except (TimeoutError, requests.Timeout):
        problem = f"nothing in {seconds:.1f} s"
    except requests.RequestException as err:
        problem = innermost(err)
    # Outside of the handlers: an error of the client carries the request with its token.
    raise LinkError(
        f"host {host} must answer: got {problem}; "
        "open the network to it, or set the proxy variables"
    )


def keep_headers(request: Any) -> Any:
    """Leave a request as it is: what requests calls an authentication."""
    return request


def innermost(error: BaseException) -> str:
    """Return the cause at the end of a chain of network errors, in a few words."""
    seen = error
    while True:
        reason = getattr(seen, "reason", None)
        inner = seen.args[0] if seen.args and isinstance(seen.args[0], BaseException) else None
        following = reason if isinstance(reason, BaseException) else inner
        if following is None or following is seen:
            return f"{type(seen).__name__} ({' '.join(str(seen).split())[:160]})"
        seen = following


def _error_of(answer: Response) -> tuple[str, str]:
    """Return code and message of an error as Azure's services write it, in either case."""
    try:
        found = answer.json()
    except ValueError:
        found = {}
    error = (found.get("error") or found.get("Error") or {}) if isinstance(found, dict) else {}
    if not isinstance(error, dict):
        error = {}
    code = error.get("code") or error.get("Code") or ""
    message = error.get("message") or error.get("Message") or answer.reason
    return str(code), " ".join(str(message).split())[:240]
