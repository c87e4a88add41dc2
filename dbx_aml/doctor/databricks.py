"""Databricks: its credential, the caller, and the caller's permission to log runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from dbx_aml._common.databricks_runtime import running_version
from dbx_aml._common.deadline import call_within
from dbx_aml._common.errors import (
    LinkError,
    NotFoundError,
    PermissionDeniedError,
    ServiceError,
)
from dbx_aml._common.http import send
from dbx_aml._common.retry import RetryPolicy
from dbx_aml._common.text import first_line, one_line
from dbx_aml.doctor.check_result import CheckResult, SkippedError, failed, ok, warning
from dbx_aml.doctor.checks import CheckContext, SharedValue
from dbx_aml.link.experiments import normalize_experiment_path
from dbx_aml.link.uris import is_databricks_uri

_NEXT_STEPS = {
    401: "use a token of this workspace: the current one is not valid there",
    403: "ask an administrator of the workspace for access",
}
_ERRORS = {403: PermissionDeniedError, 404: NotFoundError}
_WRITE_LEVELS = {"CAN_EDIT", "CAN_MANAGE", "IS_OWNER"}
# Groups that every user is in; the API does not list them for each user.
_EVERY_USER_GROUPS = ("account users", "users")


@dataclass(frozen=True, kw_only=True)
class DatabricksAccess:
    """The address of a Databricks workspace with the headers of an authenticated request.

    Args:
        url: URL of the workspace, for example "https://adb-123.4.azuredatabricks.net".
        headers: HTTP headers with the token.
        auth_method: Origin of the token, for people.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    auth_method: str


@dataclass(frozen=True, kw_only=True)
class DatabricksUser:
    """The caller in Databricks.

    Args:
        name: User name, or application id of a service principal.
        groups: Names of the caller's groups.
    """

    name: str
    groups: frozenset[str]

    def has_principal(self, principals: set[str]) -> bool:
        """Tell whether the caller or one of the caller's groups is among the principals."""
        return bool(principals & {self.name, *self.groups, *_EVERY_USER_GROUPS})


def databricks_access(context: CheckContext) -> SharedValue[DatabricksAccess]:
    """Return address and token, from variables or from the Databricks SDK's configuration."""

    def read() -> DatabricksAccess:
        uri = _databricks_uri(context)
        profile = uri.partition("://")[2] or os.environ.get("DATABRICKS_CONFIG_PROFILE")
        host, token = (os.environ.get(f"DATABRICKS_{name}") for name in ("HOST", "TOKEN"))
        if not (host and token) or profile:
            return _access_from_sdk(context, uri, profile)
        # The SDK would use the same variables, but importing it takes seconds.
        url = host if "://" in host else f"https://{host}"
        headers = {"Authorization": f"Bearer {token}"}
        method = "DATABRICKS_TOKEN is set"
        return DatabricksAccess(url=url.rstrip("/"), headers=headers, auth_method=method)

    return context.shared_value("Databricks credential", read)


def _databricks_uri(context: CheckContext) -> str:
    link = context.link
    if link.mode == "aml" and link.registry == "aml":
        raise SkippedError("the link does not use Databricks: Azure ML tracks and registers")
    if not is_databricks_uri(link.databricks_tracking_uri):
        raise SkippedError(f"{link.databricks_tracking_uri} replaces Databricks")
    if not (context.is_configured or running_version() or os.environ.get("DATABRICKS_HOST")):
        raise SkippedError("nothing is linked, and this machine is not a Databricks one")
    return link.databricks_tracking_uri


def _access_from_sdk(context: CheckContext, uri: str, profile: str | None) -> DatabricksAccess:
    from databricks.sdk.core import Config

    def authenticate() -> DatabricksAccess:
        # New releases of the SDK send requests here.
        config = Config(profile=profile)
        headers = config.authenticate()
        url = str(config.host).rstrip("/")
        return DatabricksAccess(url=url, headers=headers, auth_method=str(config.auth_type))

    seconds = context.seconds_left
    next_step = "set DATABRICKS_HOST and DATABRICKS_TOKEN, or run 'databricks auth login'"
    try:
        return call_within(authenticate, seconds)
    except TimeoutError:
        problem = f"no answer from its host in {seconds:.1f} s"
        next_step = "open the network to it, or set HTTPS_PROXY"
    except Exception as err:  # noqa: BLE001 - the SDK's sources raise errors of many libraries
        problem = first_line(err).partition(". Config:")[0]
    # Raised outside of the handlers: the SDK's error may contain the whole configuration.
    raise LinkError(f"Databricks must be set up for MLflow's {uri!r}: got {problem}; {next_step}")


def databricks_user(context: CheckContext) -> SharedValue[DatabricksUser]:
    """Return the caller in Databricks."""

    def read() -> DatabricksUser:
        user = get_json(context, "/api/2.0/preview/scim/v2/Me")
        if not user.get("userName"):
            raise LinkError(
                f"{databricks_access(context).get_or_skip().url} must be a Databricks workspace: "
                "got an answer without a user; compare DATABRICKS_HOST"
            )
        groups = frozenset(str(group.get("display")) for group in user.get("groups") or [])
        return DatabricksUser(name=str(user.get("userName")), groups=groups)

    return context.shared_value("Databricks user", read)


def check_credential(context: CheckContext) -> CheckResult:
    """Report the Databricks workspace and the origin of its token."""
    access = databricks_access(context).get()
    return ok(f"{access.url}: {access.auth_method}")


def check_user(context: CheckContext) -> CheckResult:
    """Report the caller in Databricks with the caller's groups."""
    user = databricks_user(context).get()
    groups = ", ".join(sorted(user.groups)) or "no group"
    return ok(f"{user.name}, in {groups}")


def check_experiment_folder(context: CheckContext) -> CheckResult:
    """Check that the caller may write to the link's experiment, or create it in its folder."""
    user = databricks_user(context).get_or_skip()
    if context.link.mode == "aml":
        raise SkippedError("Azure ML tracks: no run is logged in Databricks")
    experiment = context.link.experiment or ""
    folder = f"/Users/{user.name}"
    if experiment.startswith("/"):
        path = normalize_experiment_path(experiment)
        query = f"experiment_name={quote(path, safe='')}"
        answer = _find_json(context, f"/api/2.0/mlflow/experiments/get-by-name?{query}")
        if answer is not None:
            experiment_id = answer["experiment"]["experiment_id"]
            return _check_write(context, f"experiment {path}", f"experiments/{experiment_id}")
        folder = path.rpartition("/")[0] or "/"
    status = _find_json(context, f"/api/2.0/workspace/get-status?path={quote(folder, safe='')}")
    if status is None:
        return failed(
            f"folder {folder} does not exist: no experiment can be created in it",
            f"databricks workspace mkdirs {folder}",
        )
    return _check_write(context, f"folder {folder}", f"directories/{status.get('object_id')}")


def _check_write(context: CheckContext, label: str, object_path: str) -> CheckResult:
    """Check the caller's permission to write to an object of the workspace.

    Args:
        context: Input of the checks.
        label: Name of the object for people, for example "folder /Shared".
        object_path: Path of the object in the permissions API, for example "directories/12".
    """
    user = databricks_user(context).get_or_skip()
    try:
        answer = get_json(context, f"/api/2.0/permissions/{object_path}")
    except PermissionDeniedError:
        return warning(
            f"{label} exists, but {user.name} may not see who may write to it",
            "ask its owner for CAN EDIT if a run cannot be created",
        )
    writers = {
        str(
            entry.get("user_name") or entry.get("group_name") or entry.get("service_principal_name")
        )
        for entry in answer.get("access_control_list") or []
        for permission in entry.get("all_permissions") or []
        if permission.get("permission_level") in _WRITE_LEVELS
    }
    if user.has_principal(writers):
        return ok(f"{user.name} may write to {label}")
    return failed(
        f"{user.name} may not write to {label}",
        f"ask for CAN EDIT on it, from one of {', '.join(sorted(writers)) or 'the admins'}",
    )


def _find_json(context: CheckContext, path: str) -> dict[str, Any] | None:
    """Return the answer to a GET request, or None if there is no such object."""
    try:
        return get_json(context, path)
    except NotFoundError:
        return None


def get_json(context: CheckContext, path: str) -> dict[str, Any]:
    """Return the JSON object that the Databricks API answers to a GET request.

    Raises:
        ServiceError: Databricks does not answer in time, or answers with an error: a
            `NotFoundError` for 404, a `PermissionDeniedError` for 403.
    """
    access = databricks_access(context).get_or_skip()
    policy = RetryPolicy(timeout_s=context.seconds_left, max_attempts=1)
    response = send("GET", access.url + path, policy, headers=access.headers)
    try:
        body = response.json()
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    if response.status_code < 400:
        return body
    message = one_line(body.get("message") or response.reason, 240)
    next_step = _NEXT_STEPS.get(response.status_code, "try again later")
    raise _ERRORS.get(response.status_code, ServiceError)(
        f"Databricks must answer {path.partition('?')[0]}: got {response.status_code} {message}; "
        f"{next_step}"
    )


CHECKS = {
    "Databricks credential": check_credential,
    "Databricks user": check_user,
    "experiment folder": check_experiment_folder,
}
