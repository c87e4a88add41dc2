"""Unity Catalog: the caller's privileges on a model and on a volume."""

from __future__ import annotations

from urllib.parse import quote

from dbx_aml._common.errors import ArgumentError, NotFoundError, PermissionDeniedError
from dbx_aml.doctor.check_result import CheckResult, SkippedError, failed, ok
from dbx_aml.doctor.checks import CheckContext
from dbx_aml.doctor.databricks import (
    DatabricksUser,
    databricks_user,
    get_json,
)
from dbx_aml.models.model_uri import ModelUri

_ALL_PRIVILEGES = "ALL_PRIVILEGES"


def check_model(context: CheckContext) -> CheckResult:
    """Check that the caller may load a model of Unity Catalog."""
    name = ModelUri.parse(context.model_uri).name if context.model_uri else None
    if name is None or name.count(".") != 2:
        raise SkippedError("no model of Unity Catalog to check; add --model-uri")
    # In the permissions API a registered model is a function.
    return _check_privileges(context, "model", name, "function", {"EXECUTE"})


def check_volume(context: CheckContext) -> CheckResult:
    """Check that the caller may read and write a volume."""
    if context.volume is None:
        raise SkippedError("no volume to check; add --volume")
    name = ".".join(split_volume_path(context.volume))
    return _check_privileges(context, "volume", name, "volume", {"READ_VOLUME", "WRITE_VOLUME"})


def split_volume_path(path: str) -> tuple[str, str, str]:
    """Return catalog, schema and name of the volume that a path leads to or into.

    Raises:
        ArgumentError: The path does not start with a volume.
    """
    names = path.strip("/").split("/")
    if len(names) < 4 or names[0] != "Volumes" or not all(names):
        raise ArgumentError(
            f"volume must be a path: got {path!r}; use '/Volumes/<catalog>/<schema>/<volume>'"
        )
    return names[1], names[2], names[3]


def _check_privileges(
    context: CheckContext, kind: str, name: str, permission_kind: str, required: set[str]
) -> CheckResult:
    """Compare the privileges of the caller and the caller's groups with those required.

    Args:
        context: Input of the checks.
        kind: "model" or "volume".
        name: Name in Unity Catalog, for example "main.flights.delay".
        permission_kind: Type of the object in the permissions API, for example "function".
        required: Required privileges, for example {"EXECUTE"}.
    """
    user = databricks_user(context).get_or_skip()
    segment = quote(name, safe="")
    try:
        properties = get_json(context, f"/api/2.1/unity-catalog/{kind}s/{segment}")
        granted = _granted_privileges(context, f"{permission_kind}/{segment}", user)
    except (NotFoundError, PermissionDeniedError) as err:
        privileges = _format_privileges(required)
        return failed(
            f"{kind} {name} does not exist, or {user.name} may not see it ({err})",
            f"compare its name; ask its owner for USE CATALOG, USE SCHEMA and {privileges}",
        )
    owner = str(properties.get("owner") or "")
    has_all = user.has_principal({owner}) or _ALL_PRIVILEGES in granted
    missing = set() if has_all else required - granted
    if not missing:
        return ok(f"{user.name} has {_format_privileges(required)} on {kind} {name}")
    return failed(
        f"{user.name} lacks {_format_privileges(missing)} on {kind} {name}",
        f"ask its owner, {owner}, for {_format_privileges(missing)} on it",
    )


def _granted_privileges(context: CheckContext, securable: str, user: DatabricksUser) -> set[str]:
    path = f"/api/2.1/unity-catalog/effective-permissions/{securable}"
    try:
        answer = get_json(context, path)
    except PermissionDeniedError:
        # Without MANAGE a caller may still list the caller's own privileges.
        answer = get_json(context, f"{path}?principal={quote(user.name, safe='')}")
    return {
        str(privilege.get("privilege"))
        for assignment in answer.get("privilege_assignments") or []
        if user.has_principal({str(assignment.get("principal"))})
        for privilege in assignment.get("privileges") or []
    }


def _format_privileges(privileges: set[str]) -> str:
    return " and ".join(privilege.replace("_", " ") for privilege in sorted(privileges))


CHECKS = {"model in Unity Catalog": check_model, "volume": check_volume}
