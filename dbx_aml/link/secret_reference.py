"""A reference to a secret: its place, never its text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from dbx_aml._common.errors import LinkError


@dataclass(frozen=True)
class SecretRef:
    """The place of a secret: scope and key of a Databricks secret, or a variable's name.

    Args:
        scope: Scope of the Databricks secret, for example "ml".
        key: Key of the Databricks secret, for example "aml-client-secret".
        env: Name of the environment variable, for example "TEAM_CLIENT_SECRET".

    Raises:
        LinkError: The reference has neither form; the message repeats none of the values.
    """

    scope: str | None = None
    key: str | None = None
    env: str | None = None

    def __post_init__(self) -> None:
        is_databricks_secret = self.env is None and all(
            isinstance(name, str) and re.fullmatch(r"[\w.@-]{1,128}", name)
            for name in (self.scope, self.key)
        )
        is_variable = (
            self.scope is None
            and self.key is None
            and isinstance(self.env, str)
            and re.fullmatch(r"[A-Za-z_]\w*", self.env)
        )
        if not is_databricks_secret and not is_variable:
            # The value may be the secret itself.
            raise LinkError(
                "secret must be a reference, not its text: got something else; "
                "write '<scope>/<key>' of a Databricks secret, or 'env:<variable>'"
            )

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the reference of "scope/key", "env:NAME" or a mapping with these keys.

        Raises:
            LinkError: The value is no reference.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping) and value.keys() <= {"scope", "key", "env"}:
            return cls(**value)
        if isinstance(value, str) and value.startswith("env:"):
            return cls(env=value.removeprefix("env:"))
        scope, slash, key = value.partition("/") if isinstance(value, str) else ("", "", "")
        return cls(scope=scope, key=key) if slash else cls()

    def to_dict(self) -> dict[str, str]:
        """Return scope and key, or the variable, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def __str__(self) -> str:
        return f"env:{self.env}" if self.env else f"{self.scope}/{self.key}"
