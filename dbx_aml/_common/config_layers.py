"""Settings from several places, in order: of each setting the first place that has it counts."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Settings of one place.

    Args:
        values: Value by name of the setting; None for a setting that the place does not have.
        origin: Name of the place for people, for example "argument" or the path of a file.
        origins: Names of places of single settings, where they differ from `origin`.
    """

    values: Mapping[str, Any]
    origin: str
    origins: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, prefix: str, names: Iterable[str]) -> Self:
        """Return the settings of environment variables; an empty one counts as not set.

        Args:
            prefix: Begin of each variable's name, for example "DBX_AML_".
            names: Names of the settings, for example "mode" for DBX_AML_MODE.
        """
        variables = {name: f"{prefix}{name.upper()}" for name in names}
        values = {name: os.environ.get(variable) or None for name, variable in variables.items()}
        return cls(values=values, origin=f"{prefix}*", origins=variables)


class SettingSource(NamedTuple):
    """The value of a setting in a place."""

    value: Any
    origin: str


class Setting(NamedTuple):
    """A setting and the places that have it, the one that counts first."""

    sources: tuple[SettingSource, ...]

    @property
    def value(self) -> Any:
        """Value that counts."""
        return self.sources[0].value

    @property
    def origin(self) -> str:
        """Place of the value that counts."""
        return self.sources[0].origin

    @property
    def is_contradicted(self) -> bool:
        """Whether two places have different values."""
        return any(source.value != self.value for source in self.sources[1:])


def resolve(layers: Iterable[Layer]) -> dict[str, Setting]:
    """Return each setting that any layer has."""
    sources: dict[str, list[SettingSource]] = {}
    for layer in layers:
        for name, value in layer.values.items():
            if value is not None:
                origin = layer.origins.get(name, layer.origin)
                sources.setdefault(name, []).append(SettingSource(value, origin))
    return {name: Setting(tuple(found)) for name, found in sources.items()}
