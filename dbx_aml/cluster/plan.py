"""Think out an attach: what a cluster has, what it is to have, what was there before us."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.allowlist import Allowlist
from dbx_aml.cluster.attach import NEW_POLICY, Attach
from dbx_aml.cluster.attach_record import SCRIPT, Record, attached_path, is_same, read_record
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.files import Files
from dbx_aml.cluster.folder import Folder
from dbx_aml.cluster.libraries import wanted_libraries
from dbx_aml.cluster.settings_change import Change, Settings, has_secret


def plan_attach(
    client: Client,
    cluster: Cluster,
    folder: Folder,
    *,
    method: str,
    files: Files,
    variables: Mapping[str, str],
    wheels: tuple[str, ...] = (),
    skip_allowlist_check: bool = False,
) -> Attach:
    """Look at a cluster and think out its attach; nothing is written.

    Args:
        client: Who looks.
        cluster: Which.
        folder: Where its files go.
        method: "init-script", "libraries" or "policy".
        files: What it needs, the init script too unless it goes via libraries.
        variables: Environment variables that it gets.
        wheels: Names among the files that are to be cluster libraries.
        skip_allowlist_check: The metastore's allowlist is known to take the script: do not look.

    Raises:
        ClusterError: It cannot be attached so.
    """
    _check(cluster, folder, method)
    old = read_record(folder)
    is_attached = attached_path(cluster) == folder.path
    if is_attached and old and old.method != method:
        raise ClusterError(
            f"cluster {cluster} must be attached in one way: it is via {old.method}; run first: "
            f"dbx-aml cluster detach {cluster.cluster_id}"
        )
    known = old if is_attached else None
    script = None if method == "libraries" else folder.location(SCRIPT)
    libraries = tuple({"whl": folder.file(name)} for name in wheels)
    before = Settings.of(cluster)
    if (
        before.policy_id
        and method == "policy"
        and not (known and known.policy_id == before.policy_id)
    ):
        raise ClusterError(
            f"cluster {cluster} must have no policy of its own: it has {before.policy_id}; let its "
            "owner add what 'dbx-aml cluster snippet policy' prints to that one"
        )
    if known and known.libraries:
        # One that was never asked for, or has failed, is asked for again.
        before = replace(before, libraries=wanted_libraries(client, cluster, known.libraries))
    must_add, is_ours = False, False
    if script and cluster.is_standard and not skip_allowlist_check:
        allowlist = Allowlist(client, folder.file(SCRIPT))
        must_add = not allowlist.takes_it
        is_ours = must_add or bool(old and old.allowlisted and allowlist.names_it)
    now = before.variables
    if is_attached and old is None:
        # The record is lost: what is ours was not there before.
        now = {name: value for name, value in now.items() if variables.get(name) != value}
    earlier = _earlier(now, variables, known)
    kept = known.without_ours(before.variables) if known else before.variables
    after = Settings(
        init_scripts=_with_script(before.init_scripts, script),
        variables={**kept, **variables},
        libraries=libraries,
        allowlisted=(folder.file(SCRIPT),) if must_add else (),
        policy_id=(before.policy_id or NEW_POLICY) if method == "policy" else before.policy_id,
    )
    hashes = files.hashes()
    record = Record(
        method=method,
        script=script,
        variables=dict(variables),
        before=earlier,
        libraries=libraries,
        allowlisted=folder.file(SCRIPT) if is_ours else None,
        policy_id=known.policy_id if known else None,
        files=hashes,
        version=version("dbx-aml"),
    )
    return Attach(
        change=Change(cluster=cluster, before=before, after=after),
        folder=folder,
        files=files,
        record=record,
        stale=tuple(name for name in (old.files if old else ()) if name not in hashes),
        has_new_files=not old or dict(old.files) != hashes,
    )


def _check(cluster: Cluster, folder: Folder, method: str) -> None:
    source = cluster.spec.get("cluster_source", "UI")
    if source not in ("UI", "API"):
        raise ClusterError(
            f"cluster must be one for all purposes: {cluster} was made by a {source.lower()}, "
            "which makes a new one each time; put into it what 'dbx-aml cluster snippet' prints"
        )
    if method != "libraries" and folder.is_volume and cluster.access_mode == "no isolation":
        raise ClusterError(
            "a cluster without Unity Catalog must have its init script in the workspace: got "
            f"{folder.path!r} for cluster {cluster}; leave out --folder, or use /Workspace/..."
        )
    if method != "libraries" and cluster.is_standard and not folder.is_volume:
        raise ClusterError(
            "standard access mode must have its init script in a volume: got "
            f"{folder.path!r} for cluster {cluster}; give --folder "
            "/Volumes/<catalog>/<schema>/<volume>"
        )
    where = attached_path(cluster)
    if where not in (None, folder.path):
        raise ClusterError(
            f"cluster {cluster} must be attached once: it reads from {where}; leave out "
            f"--folder, or "
            f"run first: dbx-aml cluster detach {cluster.cluster_id}"
        )


def _with_script(
    scripts: tuple[Mapping[str, Any], ...], script: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], ...]:
    """Return a cluster's scripts with ours once: where it is, else after all others."""
    if script is None or any(is_same(one, script) for one in scripts):
        return scripts
    return (*scripts, script)


def _earlier(
    now: Mapping[str, str], ours: Mapping[str, str], known: Record | None
) -> dict[str, str | None]:
    """Return what our variables were before us."""
    earlier = {
        name: known.before[name] if known and name in known.before else now.get(name)
        for name in ours
    }
    for name, value in earlier.items():
        if value is not None and has_secret(name, value):
            raise ClusterError(
                f"variable {name} must hold no secret in plain text, as it would have to be kept "
                "for detach: the cluster has one there; use {{secrets/<scope>/<key>}} or remove it"
            )
    return earlier
