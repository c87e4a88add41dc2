"""Step 1, link: a credential for Azure that never asks a person, and proves itself in seconds.

azure-identity gets the tokens. What it lacks for jobs is here: one source, chosen by what is set
up; a bound on the whole of an answer; a cache that keeps tokens of any lifetime (MSAL asks anew
for one with less than five minutes left, at every call) and outlives an outage as long as they do;
one line of error that says who was asked and what each answered.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from dbx_aml._common.deadline import call_within, run_in_background
from dbx_aml._common.errors import CredentialError
from dbx_aml.azure.credential_sources import (
    VARIABLES,
    Source,
    authority_of,
    cloud_of,
    sources,
    tenant_of,
)
from dbx_aml.azure.identity import Identity, explained, identity
from dbx_aml.link.link import Link

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, AccessTokenInfo

# A new token, or an error, within so many seconds.
PROOF_S = 5.0
# After a failed refresh the old token is used and nobody asks again for so long.
_PAUSE_S = 30.0
# With more than so much left, a token is renewed in the background.
_HURRY_S = 10.0
_lock = Lock()
_known: dict[Hashable, Credential] = {}


def credential(link: Link) -> Credential:
    """Return the credential of a link: the same object while link and variables stay the same.

    Args:
        link: Link whose settings choose the source of the tokens.
    """
    found = "\0".join(str(os.environ.get(name)) for name in VARIABLES)
    # The variables may hold a secret, which is not kept here.
    digest = hashlib.sha256(found.encode("utf-8", "surrogateescape")).digest()
    who = (link.tenant_id, link.client_id, link.client_secret, link.service_credential)
    key = (who, cloud_of(link), digest)
    with _lock:
        return _known.setdefault(key, Credential(link))


@dataclass
class _Kept:
    """A token of one scope, and the one thread that may ask for the next."""

    token: AccessToken | None = None
    born: float = 0.0
    asking: Lock = field(default_factory=Lock)
    failed: str = ""
    failed_at: float = float("-inf")

    def left(self) -> float:
        """Seconds that the token is good for, less one for its way."""
        return self.token.expires_on - time.time() - 1.0 if self.token else 0.0

    def is_fresh(self) -> bool:
        """Whether nobody needs to ask yet: not in the last fifth, or five minutes, of its life."""
        life = self.token.expires_on - self.born if self.token else 0.0
        return self.left() > min(life / 2, max(5.0, min(300.0, life / 5)))


class Credential:
    """Tokens for Azure's services, from any thread; what every Azure SDK takes as `credential`.

    Args:
        link: Where it may come from, and which cloud issues it.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = Lock()
        self._kept: dict[Hashable, _Kept] = {}
        self._secrets: set[str] = set()
        self._source: Source | None = None
        self._azure: Any = None

    def __repr__(self) -> str:
        return f"Credential(source={self._source.name if self._source else None!r})"

    @property
    def scope(self) -> str:
        """What Azure Resource Manager and Azure ML take tokens for."""
        return f"https://{cloud_of(self._link).arm}/.default"

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,
    ) -> AccessToken:
        """Return a token that is good for now; a new one is asked for before the old one ends.

        Args:
            scopes: What for, for example "https://management.azure.com/.default".
            claims: Of a challenge by the service: a token with them is asked for at once.
            tenant_id: Another tenant than the credential's own.
            enable_cae: The caller handles such challenges.
            kwargs: Ignored, as azure-core's protocol wants it.

        Raises:
            CredentialError: No source gave one within five seconds.
        """
        options: dict[str, Any] = {"claims": claims, "tenant_id": tenant_id}
        options = {name: value for name, value in options.items() if value}
        if enable_cae:
            options["enable_cae"] = True
        key = (scopes or (self.scope,), tuple(sorted(options.items())))
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
        if kept.is_fresh() and kept.token is not None:
            return kept.token
        return self._renewed(kept, key[0], options)

    def get_token_info(self, *scopes: str, options: Any = None) -> AccessTokenInfo:
        """Return a token as `get_token` does, in azure-core's newer form."""
        from azure.core.credentials import AccessTokenInfo

        found = self.get_token(*scopes, **(options or {}))
        return AccessTokenInfo(found.token, found.expires_on)

    def verify(self, seconds: float = PROOF_S) -> Identity:
        """Get a token for Azure ML now; return whom it is for.

        Raises:
            CredentialError: There is none within these seconds.
        """
        with self._lock:
            kept = self._kept.setdefault(((self.scope,), ()), _Kept())
        is_fresh = kept.is_fresh() and kept.token is not None
        token = kept.token if is_fresh else self._renewed(kept, (self.scope,), {}, seconds)
        return identity(token.token if token else "")

    def describe(self) -> list[Source]:
        """Return every source in order: what says whether it is set up, and which one is used."""
        found = sources(self._link)
        chosen = self._source or next((one for one in found if one.is_configured), None)
        name = chosen.name if chosen else None
        return [replace(one, is_chosen=one.name == name) for one in found]

    def _renewed(
        self,
        kept: _Kept,
        scopes: tuple[str, ...],
        options: dict[str, Any],
        seconds: float = PROOF_S,
    ) -> AccessToken:
        """Return a new token, or the old one as long as it lives and there is no new one."""
        started = time.monotonic()
        left = kept.left()
        if left > 0:
            pause = min(_PAUSE_S, left / 2)
            if started > kept.failed_at + pause and kept.asking.acquire(blocking=False):
                if left > _HURRY_S:
                    # The caller's work goes on meanwhile.
                    run_in_background(lambda: self._ask_and_keep(kept, scopes, options, seconds))
                else:
                    self._ask_and_keep(kept, scopes, options, min(seconds, left / 2))
            if kept.token is not None:
                return kept.token
        # All wait for the one who asks, and share what he is answered.
        if not kept.asking.acquire(timeout=seconds):
            raise CredentialError(f"{self._wanted()}: got no answer in {seconds:.1f} s; try again")
        if kept.left() > 0 or kept.failed_at > started:
            kept.asking.release()
        else:
            self._ask_and_keep(kept, scopes, options, seconds)
        if kept.left() > 0 and kept.token is not None:
            return kept.token
        raise CredentialError(
            kept.failed or f"{self._wanted()}: got one that has ended; set the clock"
        )

    def _ask_and_keep(
        self, kept: _Kept, scopes: tuple[str, ...], options: dict[str, Any], seconds: float
    ) -> None:
        """Ask, keep what is answered, and let the next one ask."""
        try:
            token, failed = self._asked(scopes, options, seconds)
            if token is None:
                kept.failed, kept.failed_at = failed, time.monotonic()
            else:
                kept.token, kept.born, kept.failed = token, time.time(), ""
        finally:
            kept.asking.release()

    def _asked(
        self, scopes: tuple[str, ...], options: dict[str, Any], seconds: float
    ) -> tuple[AccessToken | None, str]:
        """Ask the chosen source, or the ambient ones in turn; return a token or what they said."""
        deadline = time.monotonic() + seconds
        found = sources(self._link)
        asked = [one for one in found if one.is_configured][:1]
        asked = (
            [self._source] if self._source else asked or [one for one in found if one.is_ambient]
        )
        answers = []
        for one in asked:
            azure = self._azure

            def ask(one: Source = one, azure: Any = azure) -> tuple[Any, AccessToken]:
                azure = azure or one.make(self._secrets)
                return azure, azure.get_token(*scopes, **options)

            try:
                azure, token = call_within(ask, deadline - time.monotonic())
            except TimeoutError:
                said = f"no answer in {seconds:.1f} s, is the network open"
                answers.append(f"{one.name} ({one.why}): {said}")
            except Exception as err:  # noqa: BLE001 - whatever it is, it is this source's answer
                said = explained(err, tenant_of(self._link), self._secrets)
                answers.append(f"{one.name} ({one.why}): {said}")
            else:
                self._source, self._azure = one, azure
                return token, ""
        # MSAL would repeat a 429 or 5xx for a minute without asking: a new one asks.
        self._azure = None
        if len(asked) > 1:
            step = "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or another source"
        else:
            step = "correct it, no other source is tried"
        return None, f"{self._wanted()}: got from {'; from '.join(answers)}; {step}"

    def _wanted(self) -> str:
        return f"Azure ({authority_of(self._link)}) must give a token"
