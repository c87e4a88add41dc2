"""Unity Catalog: may the caller load a model, read and write a volume; nothing is tried."""

from __future__ import annotations

from urllib.parse import quote

from dbx_aml._common.errors import ArgumentError
from dbx_aml.doctor.check_result import Finding, SkippedError, failed, ok
from dbx_aml.doctor.checks import Case
from dbx_aml.doctor.databricks import RefusedError, User, told, user
from dbx_aml.models.model_uri import ModelUri

_EVERYTHING = "ALL_PRIVILEGES"


def model(case: Case) -> Finding:
    """Look up whether the caller may load a model of Unity Catalog."""
    name = ModelUri.parse(case.model_uri).name if case.model_uri else None
    if name is None or name.count(".") != 2:
        raise SkippedError("no model of Unity Catalog is named; name one with --model-uri")
    # Registered models are functions to the permissions API.
    return _privileges(case, "model", f"models/{name}", f"function/{name}", {"EXECUTE"})


def volume(case: Case) -> Finding:
    """Look up whether the caller may read and write a volume."""
    if case.volume is None:
        raise SkippedError("no volume is named; name one with --volume")
    name = ".".join(volume_parts(case.volume))
    wanted = {"READ_VOLUME", "WRITE_VOLUME"}
    return _privileges(case, "volume", f"volumes/{name}", f"volume/{name}", wanted)


def volume_parts(path: str) -> tuple[str, str, str]:
    """Return catalog, schema and name of a volume's path, or of one below it.

    Raises:
        ArgumentError: It is no such path.
    """
    parts = path.strip("/").split("/")
    if len(parts) < 4 or parts[0] != "Volumes" or not all(parts):
        raise ArgumentError(
            f"volume must be a path: got {path!r}; use '/Volumes/<catalog>/<schema>/<volume>'"
        )
    return parts[1], parts[2], parts[3]


def _privileges(case: Case, kind: str, where: str, which: str, wanted: set[str]) -> Finding:
    """Compare what the caller holds on something in Unity Catalog, by itself or its groups."""
    me = user(case).needed()
    name = where.partition("/")[2]
    try:
        found = told(case, f"/api/2.1/unity-catalog/{where}")
        granted = _granted(case, which, me)
    except RefusedError as err:
        if err.status not in (403, 404):
            raise
        return failed(
            f"{kind} {name} is not there, or not shown to {me.name} ({err})",
            f"compare its name; ask its owner for USE CATALOG, USE SCHEMA and {_spoken(wanted)}",
        )
    owner = str(found.get("owner") or "")
    holds_all = me.is_one_of({owner}) or _EVERYTHING in granted
    lacks = set() if holds_all else wanted - granted
    if not lacks:
        return ok(f"{me.name} has {_spoken(wanted)} on {kind} {name}")
    return failed(
        f"{me.name} lacks {_spoken(lacks)} on {kind} {name}",
        f"ask its owner, {owner}, for {_spoken(lacks)} on it",
    )


def _granted(case: Case, which: str, me: User) -> set[str]:
    path = f"/api/2.1/unity-catalog/effective-permissions/{which}"
    try:
        found = told(case, path)
    except RefusedError as err:
        if err.status != 403:
            raise
        # Who does not manage it may still ask for themselves.
        found = told(case, f"{path}?principal={quote(me.name, safe='')}")
    return {
        str(one.get("privilege"))
        for held in found.get("privilege_assignments") or []
        if me.is_one_of({str(held.get("principal"))})
        for one in held.get("privileges") or []
    }


def _spoken(privileges: set[str]) -> str:
    return " and ".join(one.replace("_", " ") for one in sorted(privileges))


CHECKS = {"model in Unity Catalog": model, "volume": volume}
