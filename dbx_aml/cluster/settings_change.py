"""What attach and detach change of a cluster: shown as a difference, then made.

Only what differs is sent, and always whole: the service replaces what a mask names.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster

Script = Mapping[str, Mapping[str, Any]]
# Libraries by kind, for example {"whl": "/Volumes/..."}.
Library = Mapping[str, Any]
Say = Callable[[str], None]

_PASSWORD = re.compile(r"(://)[^/@\s]*:[^/@\s]+@")
_SECRET_NAME = re.compile(r"secret|password|token|_key$", re.IGNORECASE)
_REFERENCE = re.compile(r"\{\{secrets/[^}]+\}\}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a cluster that concern us, before or after.

    Args:
        init_scripts: All of them, in their order.
        variables: All of its environment variables.
        libraries: Those that we add or take away.
        allowlisted: Scripts of ours that the metastore's allowlist names.
        policy_id: Its cluster policy.
    """

    init_scripts: tuple[Script, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    libraries: tuple[Library, ...] = ()
    allowlisted: tuple[str, ...] = ()
    policy_id: str | None = None

    @classmethod
    def of(cls, cluster: Cluster) -> "Settings":
        """Return the settings of a cluster as it is; libraries and allowlist are not in it."""
        return cls(
            init_scripts=tuple(cluster.init_scripts),
            variables=cluster.variables,
            policy_id=cluster.spec.get("policy_id"),
        )

    def as_spec(self) -> dict[str, Any]:
        """Return them as the clusters API takes them."""
        return {
            "init_scripts": [dict(one) for one in self.init_scripts],
            "spark_env_vars": dict(self.variables),
            "policy_id": self.policy_id,
        }

    def lines(self, names: set[str]) -> Iterator[str]:
        """Yield one line a setting.

        Args:
            names: Variables whose values may be shown: ours.
        """
        yield from _section("init_scripts", map(_one_line, self.init_scripts))
        values = [
            f"{name}: {shown(name, value) if name in names else '(not shown)'}"
            for name, value in self.variables.items()
        ]
        yield from _section("spark_env_vars", values)
        yield from _section("libraries", map(_one_line, self.libraries))
        yield from _section("allowlist of the metastore", self.allowlisted)
        if self.policy_id:
            yield f"policy_id: {self.policy_id}"


def _section(title: str, rows: Iterable[str]) -> Iterator[str]:
    found = [f"  {row}" for row in rows]
    yield from [f"{title}:", *found] if found else []


def _one_line(one: Mapping[str, Any]) -> str:
    kind, what = next(iter(one.items()))
    return f"{kind} {what.get('destination') if isinstance(what, Mapping) else what}"


def shown(name: str, value: str) -> str:
    """Return a variable's value without what could be a secret."""
    if _SECRET_NAME.search(name) and not _REFERENCE.fullmatch(value):
        return "(not shown)"
    return _PASSWORD.sub(r"\1***@", value)


def has_secret(name: str, value: str) -> bool:
    """Tell whether a variable's value could be a secret in plain text."""
    return shown(name, value) != value


@dataclass(frozen=True, kw_only=True)
class Change:
    """From one state of a cluster's settings to another.

    Args:
        cluster: As it was looked at.
        before: Its settings.
        after: What they are to be.
    """

    cluster: Cluster
    before: Settings
    after: Settings

    @property
    def mask(self) -> list[str]:
        """Fields of the cluster that differ."""
        before, after = self.before.as_spec(), self.after.as_spec()
        return [name for name in before if before[name] != after[name]]

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs, be it on the cluster or beside it."""
        return self.before == self.after

    def diff(self) -> list[str]:
        """Return the lines of a difference; values of other people's variables are not in it."""
        old, new = self.before.variables, self.after.variables
        names = {name for name in {*old, *new} if old.get(name) != new.get(name)}
        lines = difflib.ndiff([*self.before.lines(names)], [*self.after.lines(names)])
        return [line for line in lines if not line.startswith("?")]

    def anew(self, cluster: Cluster) -> "Change":
        """Return this change for the cluster as it is by now.

        It may be made already: by a request whose answer was lost.

        Raises:
            ClusterError: Somebody else has changed the same settings since.
        """
        now = Settings.of(cluster)
        for known in (self.before, self.after):
            if replace(known, libraries=(), allowlisted=()) == now:
                libraries, allowlisted = self.before.libraries, self.before.allowlisted
                before = replace(now, libraries=libraries, allowlisted=allowlisted)
                return replace(self, cluster=cluster, before=before)
        raise ClusterError(
            f"cluster {cluster} must stay as it was shown: its settings were changed by somebody "
            "else meanwhile; run the command again"
        )

    def send(self, client: Client) -> None:
        """Send the fields that differ; a running cluster restarts.

        Raises:
            ClusterError: The caller may not, or the cluster takes no change now.
        """
        spec = self.after.as_spec()
        client.call(
            "POST",
            "/api/2.1/clusters/update",
            what=f"change cluster {self.cluster}",
            body={
                "cluster_id": self.cluster.cluster_id,
                "update_mask": ",".join(self.mask),
                # A field in the mask that is left out is removed.
                "cluster": {name: spec[name] for name in self.mask if spec[name]},
            },
            hint="ask its owner for CAN MANAGE",
        )

    def uninstall(self, client: Client) -> None:
        """Ask for the end of libraries that are not wanted; they go at the next restart."""
        self._ask(client, "uninstall", _less(self.before.libraries, self.after.libraries))

    def install(self, client: Client) -> None:
        """Ask for libraries that are new; they come later."""
        self._ask(client, "install", _less(self.after.libraries, self.before.libraries))

    def _ask(self, client: Client, call: str, libraries: list[dict[str, Any]]) -> None:
        if libraries:
            client.call(
                "POST",
                f"/api/2.0/libraries/{call}",
                what=f"{call} libraries on cluster {self.cluster}",
                body={"cluster_id": self.cluster.cluster_id, "libraries": libraries},
                hint="ask its owner for CAN MANAGE",
            )


def _less(these: tuple[Library, ...], those: tuple[Library, ...]) -> list[dict[str, Any]]:
    return [dict(one) for one in these if one not in those]
