"""A reference to a secret: where it is, never what it is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from dbx_aml._common.errors import LinkError


@dataclass(frozen=True)
class SecretRef:
    """Where a secret is: a Databricks secret's scope and key, or a variable's name.

    Args:
        scope: For example "ml".
        key: For example "aml-client-secret".
        env: For example "TEAM_CLIENT_SECRET".

    Raises:
        LinkError: It is neither of the two; the message has none of the values.
    """

    scope: str | None = None
    key: str | None = None
    env: str | None = None

    def __post_init__(self) -> None:
        is_secret = all(
            isinstance(part, str) and re.fullmatch(r"[\w.@-]{1,128}", part)
            for part in (self.scope, self.key)
        )
        is_variable = isinstance(self.env, str) and re.fullmatch(r"[A-Za-z_]\w*", self.env)
        given = [self.scope, self.key] if is_secret else [self.env] if is_variable else []
        if not given or sum(part is not None for part in (self.scope, self.key, self.env)) != len(
            given
        ):
            # What was given may be the secret itself.
            raise LinkError(
                "secret must be a reference, not its text: got something else; "
                "write '<scope>/<key>' of a Databricks secret, or 'env:<variable>'"
            )

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the reference that "scope/key", "env:NAME" or a mapping of them is.

        Raises:
            LinkError: It is no reference.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping) and value.keys() <= {"scope", "key", "env"}:
            return cls(**value)
        if isinstance(value, str) and value.startswith("env:"):
            return cls(env=value.removeprefix("env:"))
        scope, slash, key = value.partition("/") if isinstance(value, str) else ("", "", "")
        return cls(scope=scope, key=key) if slash else cls()

    def as_json(self) -> dict[str, str]:
        """Return the parts that are given."""
        return {name: part for name, part in vars(self).items() if part is not None}

    def __str__(self) -> str:
        return f"env:{self.env}" if self.env else f"{self.scope}/{self.key}"
