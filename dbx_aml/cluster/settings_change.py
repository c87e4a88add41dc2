"""The difference between a cluster's current settings and the desired ones; nothing is sent here.

The clusters API replaces each field of an update mask as a whole. A change therefore always holds
all init scripts and all variables of the cluster, also other people's.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from dbx_aml._common.errors import ClusterError
from dbx_aml._common.redact import is_secret_name, redact
from dbx_aml.cluster.clusters import Cluster

# An init script by its storage, for example {"volumes": {"destination": "/Volumes/..."}}.
Script = Mapping[str, Mapping[str, Any]]
# A library by its kind, for example {"whl": "/Volumes/..."}.
Library = Mapping[str, Any]

_SECRET_REFERENCE = re.compile(r"\{\{secrets/[^}]+\}\}")


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """The settings that attach and detach change.

    Args:
        init_scripts: All init scripts of the cluster, in order.
        variables: All environment variables of the cluster.
        libraries: Libraries that attach installs or detach removes; others are not listed.
        allowlist_entries: Paths of our init script in the metastore's allowlist.
    """

    init_scripts: tuple[Script, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    libraries: tuple[Library, ...] = ()
    allowlist_entries: tuple[str, ...] = ()

    @classmethod
    def from_cluster(cls, cluster: Cluster) -> Self:
        """Return the settings of a cluster, without libraries and allowlist entries."""
        return cls(
            init_scripts=tuple(cluster.init_scripts),
            variables=cluster.variables,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of the clusters API."""
        return {
            "init_scripts": [dict(script) for script in self.init_scripts],
            "spark_env_vars": dict(self.variables),
        }

    def has_same_fields(self, other: "ClusterSettings") -> bool:
        """Tell whether the fields of the clusters API are the same."""
        return self.to_dict() == other.to_dict()

    def lines(self, visible_variables: set[str]) -> Iterator[str]:
        """Yield the settings as text, one line each.

        Args:
            visible_variables: Names of the variables whose values are not hidden.
        """
        values = [
            f"{name}: "
            + (redact_variable(name, value) if name in visible_variables else "(not shown)")
            for name, value in self.variables.items()
        ]
        yield from _section_lines("init_scripts", map(_storage_line, self.init_scripts))
        yield from _section_lines("spark_env_vars", values)
        yield from _section_lines("libraries", map(_storage_line, self.libraries))
        yield from _section_lines("allowlist of the metastore", self.allowlist_entries)


def redact_variable(name: str, value: str) -> str:
    """Return the value of a variable without passwords and secrets."""
    if is_secret_name(name) and not _SECRET_REFERENCE.fullmatch(value):
        return "(not shown)"
    return redact(value)


def has_secret(name: str, value: str) -> bool:
    """Tell whether the value of a variable may be a secret in plain text."""
    return redact_variable(name, value) != value


@dataclass(frozen=True, kw_only=True)
class SettingsChange:
    """A change of a cluster's settings.

    Args:
        cluster: Cluster with the current settings.
        current: Settings before the change.
        desired: Settings after the change.
    """

    cluster: Cluster
    current: ClusterSettings
    desired: ClusterSettings

    @property
    def changed_fields(self) -> list[str]:
        """Names of the changed fields, as the clusters API has them; libraries are not fields."""
        current, desired = self.current.to_dict(), self.desired.to_dict()
        return [name for name in current if current[name] != desired[name]]

    @property
    def is_empty(self) -> bool:
        """Whether current and desired settings are equal, libraries and allowlist included."""
        return self.current == self.desired

    @property
    def new_libraries(self) -> list[Library]:
        """Libraries to install."""
        return _difference(self.desired.libraries, self.current.libraries)

    @property
    def removed_libraries(self) -> list[Library]:
        """Libraries to uninstall."""
        return _difference(self.current.libraries, self.desired.libraries)

    def diff_lines(self) -> list[str]:
        """Return the change as lines that begin with "+ ", "- " or two blanks.

        Values of variables that do not change are hidden: they may be secrets of other people.
        """
        current, desired = self.current.variables, self.desired.variables
        changed = {name for name in {*current, *desired} if current.get(name) != desired.get(name)}
        lines = difflib.ndiff([*self.current.lines(changed)], [*self.desired.lines(changed)])
        return [line for line in lines if not line.startswith("?")]

    def rebase_on(self, cluster: Cluster) -> "SettingsChange":
        """Return the same change for a newer reading of the cluster.

        The cluster may already have the desired settings, after a request whose answer was lost.

        Args:
            cluster: Cluster read again.

        Raises:
            ClusterError: Another user has changed the same settings since the plan was made.
        """
        latest = ClusterSettings.from_cluster(cluster)
        for expected in (self.current, self.desired):
            if expected.has_same_fields(latest):
                current = replace(
                    latest,
                    libraries=self.current.libraries,
                    allowlist_entries=self.current.allowlist_entries,
                )
                return replace(self, cluster=cluster, current=current)
        raise ClusterError(
            f"cluster {cluster} must stay as it was shown: another user has changed its settings "
            "since; run the command again"
        )


def _section_lines(title: str, rows: Iterable[str]) -> Iterator[str]:
    lines = [f"  {row}" for row in rows]
    yield from [f"{title}:", *lines] if lines else []


def _storage_line(entry: Mapping[str, Any]) -> str:
    kind, storage = next(iter(entry.items()))
    return f"{kind} {storage.get('destination') if isinstance(storage, Mapping) else storage}"


def _difference(libraries: tuple[Library, ...], without: tuple[Library, ...]) -> list[Library]:
    return [dict(library) for library in libraries if library not in without]
