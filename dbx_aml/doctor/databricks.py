"""The Databricks side: how it is reached, who the caller is, and may it track there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from dbx_aml._common.databricks_runtime import running_version
from dbx_aml._common.deadline import call_within
from dbx_aml._common.errors import LinkError
from dbx_aml._common.text import first_line
from dbx_aml.azure.workspaces import asked
from dbx_aml.doctor.check_result import Finding, SkippedError, failed, ok, warning
from dbx_aml.doctor.checks import Case, Fact
from dbx_aml.link.experiments import normal_path
from dbx_aml.link.uris import is_databricks_uri

_STEPS = {
    401: "get a token of this workspace: the one that is set is not valid here",
    403: "ask an admin of the workspace for access",
}
_WRITERS = {"CAN_EDIT", "CAN_MANAGE", "IS_OWNER"}
# Groups that hold everybody, whether or not the caller is told so.
_EVERYBODY = ("account users", "users")


@dataclass(frozen=True, kw_only=True)
class Access:
    """A workspace, and what its API wants.

    Args:
        url: For example "https://adb-123.4.azuredatabricks.net".
        headers: With the token.
        way: How the token is got, for people.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    way: str


@dataclass(frozen=True, kw_only=True)
class User:
    """The caller.

    Args:
        name: A user's name, or a service principal's application id.
        groups: Those that the caller is in.
    """

    name: str
    groups: frozenset[str]

    def is_one_of(self, principals: set[str]) -> bool:
        """Tell whether one of these is the caller, or a group that the caller is in."""
        return bool(principals & {self.name, *self.groups, *_EVERYBODY})


class RefusedError(LinkError):
    """The API answers with an error, whose `status` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def access(case: Case) -> Fact[Access]:
    """How to reach the Databricks workspace: its variables, else what the SDK finds."""

    def ask() -> Access:
        uri = _databricks_uri(case)
        profile = uri.partition("://")[2] or os.environ.get("DATABRICKS_CONFIG_PROFILE")
        host, token = (os.environ.get(f"DATABRICKS_{name}") for name in ("HOST", "TOKEN"))
        if not (host and token) or profile:
            return _found_by_sdk(case, uri, profile)
        # What the SDK would take too; importing that takes seconds.
        url = host if "://" in host else f"https://{host}"
        headers = {"Authorization": f"Bearer {token}"}
        return Access(url=url.rstrip("/"), headers=headers, way="DATABRICKS_TOKEN is set")

    return case.fact("Databricks credential", ask)


def _databricks_uri(case: Case) -> str:
    link = case.link
    if link.mode == "aml" and link.registry == "aml":
        raise SkippedError("no Databricks side in the link: Azure ML tracks and registers")
    if not is_databricks_uri(link.databricks_tracking_uri):
        raise SkippedError(f"{link.databricks_tracking_uri} stands in for Databricks")
    if not (case.is_linked or running_version() or os.environ.get("DATABRICKS_HOST")):
        raise SkippedError("nothing is linked, and this is not Databricks")
    return link.databricks_tracking_uri


def _found_by_sdk(case: Case, uri: str, profile: str | None) -> Access:
    from databricks.sdk.core import Config

    def ask() -> Access:
        # A newer SDK asks the host what it is, and may ask for a token.
        config = Config(profile=profile)
        headers = config.authenticate()
        return Access(url=str(config.host).rstrip("/"), headers=headers, way=str(config.auth_type))

    seconds = case.left_s
    step = "set DATABRICKS_HOST and DATABRICKS_TOKEN, or run 'databricks auth login'"
    try:
        return call_within(ask, seconds)
    except TimeoutError:
        problem = f"no answer from its host in {seconds:.1f} s"
        step = "open the network to it, or set HTTPS_PROXY"
    except Exception as err:  # noqa: BLE001 - ValueError, and whatever a way to sign in raises
        problem = first_line(err).partition(". Config:")[0]
    # Outside of the handlers: the error may have more of the configuration.
    raise LinkError(f"Databricks must be set up for MLflow's {uri!r}: got {problem}; {step}")


def user(case: Case) -> Fact[User]:
    """Who the caller is in Databricks."""

    def ask() -> User:
        found = told(case, "/api/2.0/preview/scim/v2/Me")
        if not found.get("userName"):
            raise LinkError(
                f"{access(case).needed().url} must be a Databricks workspace: got an answer "
                "without a user; compare DATABRICKS_HOST"
            )
        groups = frozenset(str(one.get("display")) for one in found.get("groups") or [])
        return User(name=str(found.get("userName")), groups=groups)

    return case.fact("Databricks user", ask)


def sign_in(case: Case) -> Finding:
    """Tell which Databricks workspace is called, and with what."""
    found = access(case).asked()
    return ok(f"{found.url}: {found.way}")


def caller(case: Case) -> Finding:
    """Tell who the caller is in Databricks."""
    found = user(case).asked()
    groups = ", ".join(sorted(found.groups)) or "no group"
    return ok(f"{found.name}, in {groups}")


def experiment(case: Case) -> Finding:
    """Look up whether the caller may write to the link's experiment, or make it in its folder."""
    me = user(case).needed()
    if case.link.mode == "aml":
        raise SkippedError("Azure ML tracks, no experiment in Databricks is written to")
    named = case.link.experiment or ""
    folder = f"/Users/{me.name}"
    if named.startswith("/"):
        path = normal_path(named)
        found = _or_none(
            case, f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(path, safe='')}"
        )
        if found is not None:
            identifier = found["experiment"]["experiment_id"]
            return _may_write(case, f"experiment {path}", f"experiments/{identifier}")
        folder = path.rpartition("/")[0] or "/"
    status = _or_none(case, f"/api/2.0/workspace/get-status?path={quote(folder, safe='')}")
    if status is None:
        return failed(
            f"folder {folder} does not exist: no experiment can be made in it",
            f"databricks workspace mkdirs {folder}",
        )
    return _may_write(case, f"folder {folder}", f"directories/{status.get('object_id')}")


def _may_write(case: Case, what: str, which: str) -> Finding:
    me = user(case).needed()
    try:
        found = told(case, f"/api/2.0/permissions/{which}")
    except RefusedError as err:
        if err.status != 403:
            raise
        return warning(
            f"{what} is there; whether {me.name} may write there is not shown to them",
            "ask its owner for CAN EDIT if a run cannot be made",
        )
    writers = {
        str(one.get("user_name") or one.get("group_name") or one.get("service_principal_name"))
        for one in found.get("access_control_list") or []
        for level in one.get("all_permissions") or []
        if level.get("permission_level") in _WRITERS
    }
    if me.is_one_of(writers):
        return ok(f"{me.name} may write to {what}")
    return failed(
        f"{me.name} may not write to {what}",
        f"ask for CAN EDIT on it, from one of {', '.join(sorted(writers)) or 'the admins'}",
    )


def _or_none(case: Case, path: str) -> dict[str, Any] | None:
    try:
        return told(case, path)
    except RefusedError as err:
        if err.status != 404:
            raise
        return None


def told(case: Case, path: str) -> dict[str, Any]:
    """Return what the workspace's API answers to a read.

    Raises:
        LinkError: Nothing, or an error.
    """
    to = access(case).needed()
    answer = asked("GET", to.url + path, case.left_s, headers=to.headers)
    try:
        found = answer.json()
    except ValueError:
        found = {}
    found = found if isinstance(found, dict) else {}
    if answer.status_code < 400:
        return found
    said = " ".join(str(found.get("message") or answer.reason).split())[:240]
    step = _STEPS.get(answer.status_code, "try again later")
    raise RefusedError(
        f"Databricks must answer {path.partition('?')[0]}: got {answer.status_code} {said}; {step}",
        answer.status_code,
    )


CHECKS = {
    "Databricks credential": sign_in,
    "Databricks user": caller,
    "experiment folder": experiment,
}
