"""A credential for Azure without interactive sign-in, which fails within seconds.

azure-identity gets the tokens. This module adds what jobs need: one source, chosen by the settings;
a deadline for the whole request; a cache that keeps tokens of any lifetime (MSAL requests a new
token at each call if less than five minutes are left) and uses them through an outage; a
`CredentialError` that lists each source tried and its error, on one line.
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
    CredentialSource,
    authority_host,
    cloud_of_link,
    credential_sources,
    import_client_modules,
    tenant_of_link,
)
from dbx_aml.azure.identity import Identity, identity_of_token, short_message
from dbx_aml.link.link import Link

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, AccessTokenInfo

# Longest time for a new token.
TOKEN_TIMEOUT_S = 5.0
# After a failed refresh the old token is used for so long before the next attempt.
_REFRESH_PAUSE_S = 30.0
# A token with more time left is refreshed in the background.
_BACKGROUND_REFRESH_S = 10.0
_lock = Lock()
_credentials_by_key: dict[Hashable, Credential] = {}


def get_credential(link: Link) -> Credential:
    """Return the credential of a link: the same object while link and variables stay the same.

    Args:
        link: Link whose settings choose the source of the tokens.
    """
    values = "\0".join(str(os.environ.get(name)) for name in VARIABLES)
    # The values may hold a secret, which must not stay in memory here.
    digest = hashlib.sha256(values.encode("utf-8", "surrogateescape")).digest()
    identity = (link.tenant_id, link.client_id, link.client_secret, link.service_credential)
    key = (identity, cloud_of_link(link), digest)
    with _lock:
        return _credentials_by_key.setdefault(key, Credential(link))


def _renew_locks() -> None:
    """Renew every lock in a forked process: a thread of its parent may have held it."""
    global _lock
    _lock = Lock()
    for credential in _credentials_by_key.values():
        credential.renew_locks()


os.register_at_fork(after_in_child=_renew_locks)


def reset_for_tests() -> None:
    """Forget all credentials and their tokens."""
    with _lock:
        _credentials_by_key.clear()


@dataclass
class _CachedToken:
    """The token of one scope; only the thread that holds the lock may request the next one."""

    token: AccessToken | None = None
    issued_at: float = 0.0
    refresh_lock: Lock = field(default_factory=Lock)
    error: str = ""
    error_time: float = float("-inf")

    def seconds_left(self) -> float:
        """Return the time until the token expires, less one second for its way."""
        return self.token.expires_on - time.time() - 1.0 if self.token else 0.0

    def fresh_token(self) -> AccessToken | None:
        """Return the token before the last fifth of its life, or the last five minutes."""
        if self.token is None:
            return None
        lifetime = self.token.expires_on - self.issued_at
        margin = min(lifetime / 2, max(5.0, min(300.0, lifetime / 5)))
        return self.token if self.seconds_left() > margin else None


class Credential:
    """Tokens for Azure's services, from any thread; what every Azure SDK takes as `credential`.

    Args:
        link: Link whose settings choose the source of the tokens and the cloud.
        source: Source of the tokens, whatever the settings are.
    """

    def __init__(self, link: Link, source: CredentialSource | None = None) -> None:
        self._link = link
        self._lock = Lock()
        self._tokens: dict[Hashable, _CachedToken] = {}
        self._secrets: set[str] = set()
        self._source = source
        self._azure_credential: Any = None

    def __repr__(self) -> str:
        return f"Credential(source={self._source.name if self._source else None!r})"

    def renew_locks(self) -> None:
        """Renew the locks in a forked process; the client may hold a lock, so it goes too."""
        self._lock = Lock()
        self._azure_credential = None
        for cached in self._tokens.values():
            cached.refresh_lock = Lock()

    @property
    def scope(self) -> str:
        """The scope of tokens for Azure Resource Manager and Azure ML."""
        return f"https://{cloud_of_link(self._link).arm}/.default"

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,
    ) -> AccessToken:
        """Return a token that is valid now; it is refreshed before it expires.

        Args:
            scopes: Scopes, for example "https://management.azure.com/.default".
            claims: Claims of a challenge by the service; a token with them is requested at once.
            tenant_id: Tenant, if it is not the credential's own.
            enable_cae: Whether the caller handles such challenges.
            kwargs: Options of azure-core's protocol that have no meaning here.

        Raises:
            CredentialError: No source gave a token within five seconds.
        """
        options: dict[str, Any] = {"claims": claims, "tenant_id": tenant_id}
        options = {name: value for name, value in options.items() if value}
        if enable_cae:
            options["enable_cae"] = True
        return self._get_fresh_token(scopes or (self.scope,), options, TOKEN_TIMEOUT_S)

    def get_token_info(self, *scopes: str, options: Any = None) -> AccessTokenInfo:
        """Return a token as `get_token` does, in the form of azure-core's newer protocol."""
        from azure.core.credentials import AccessTokenInfo

        token = self.get_token(*scopes, **(options or {}))
        return AccessTokenInfo(token.token, token.expires_on)

    def verify(self, timeout_s: float = TOKEN_TIMEOUT_S) -> Identity:
        """Get a token for Azure ML now; return the user or application that it is for.

        Raises:
            CredentialError: No source gave a token within the time.
        """
        return identity_of_token(self._get_fresh_token((self.scope,), {}, timeout_s).token)

    def describe_sources(self) -> list[CredentialSource]:
        """Return every source in order, each with its setting; one of them may be selected."""
        sources = credential_sources(self._link)
        if self._source is not None and self._source.name not in {s.name for s in sources}:
            sources.insert(0, self._source)
        configured = (source for source in sources if source.is_configured)
        selected = self._source or next(configured, None)
        name = selected.name if selected else None
        return [replace(source, is_selected=source.name == name) for source in sources]

    def selected_source(self) -> CredentialSource | None:
        """Return the source of the tokens; None if none is configured and none was used yet."""
        return next((source for source in self.describe_sources() if source.is_selected), None)

    def _get_fresh_token(
        self, scopes: tuple[str, ...], options: dict[str, Any], timeout_s: float
    ) -> AccessToken:
        """Return a fresh token; during an outage the old one until it expires."""
        with self._lock:
            key = (scopes, tuple(sorted(options.items())))
            cached = self._tokens.setdefault(key, _CachedToken())
        token = cached.fresh_token()
        if token is not None:
            return token
        import_client_modules()
        start_time = time.monotonic()
        seconds_left = cached.seconds_left()
        if seconds_left > 0:
            pause_s = min(_REFRESH_PAUSE_S, seconds_left / 2)
            is_due = start_time > cached.error_time + pause_s
            if is_due and cached.refresh_lock.acquire(blocking=False):
                if seconds_left > _BACKGROUND_REFRESH_S:
                    run_in_background(lambda: self._refresh(cached, scopes, options, timeout_s))
                else:
                    self._refresh(cached, scopes, options, min(timeout_s, seconds_left / 2))
            if cached.token is not None:
                return cached.token
        # One thread requests the token; the others wait for the lock and share its result.
        if not cached.refresh_lock.acquire(timeout=timeout_s):
            raise CredentialError(
                f"{self._error_prefix()}: got no answer in {timeout_s:.1f} s; try again"
            )
        if cached.seconds_left() > 0 or cached.error_time > start_time:
            cached.refresh_lock.release()
        else:
            self._refresh(cached, scopes, options, timeout_s)
        if cached.seconds_left() > 0 and cached.token is not None:
            return cached.token
        expired = f"{self._error_prefix()}: got one that has expired; set the clock"
        raise CredentialError(cached.error or expired)

    def _refresh(
        self,
        cached: _CachedToken,
        scopes: tuple[str, ...],
        options: dict[str, Any],
        timeout_s: float,
    ) -> None:
        """Request a token, keep it or the error, and release the lock."""
        try:
            token, error = self._request_token(scopes, options, timeout_s)
            if token is None:
                cached.error, cached.error_time = error, time.monotonic()
            else:
                cached.token, cached.issued_at, cached.error = token, time.time(), ""
        finally:
            cached.refresh_lock.release()

    def _request_token(
        self, scopes: tuple[str, ...], options: dict[str, Any], timeout_s: float
    ) -> tuple[AccessToken | None, str]:
        """Request a token from the selected source, or from each candidate in turn.

        Returns:
            The token and "", or None and the error.
        """
        deadline = time.monotonic() + timeout_s
        candidates = self._candidates()
        errors = []
        for source in candidates:
            azure_credential = self._azure_credential

            def request(
                source: CredentialSource = source, azure_credential: Any = azure_credential
            ) -> tuple[Any, AccessToken]:
                azure_credential = azure_credential or source.create_credential(self._secrets)
                return azure_credential, azure_credential.get_token(*scopes, **options)

            try:
                azure_credential, token = call_within(request, deadline - time.monotonic())
            except TimeoutError:
                message = f"no answer in {timeout_s:.1f} s, is the network open"
            except Exception as err:  # noqa: BLE001 - whatever it is, the message reports it
                message = short_message(err, tenant_of_link(self._link), self._secrets)
            else:
                self._source, self._azure_credential = source, azure_credential
                return token, ""
            errors.append(f"{source.name} ({source.reason}): {message}")
        # For a minute MSAL repeats the error of a 429 or 5xx without a request: the next request
        # gets a new credential.
        self._azure_credential = None
        if len(candidates) > 1:
            step = "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or another source"
        else:
            step = "correct it, no other source is tried"
        return None, f"{self._error_prefix()}: got from {'; from '.join(errors)}; {step}"

    def _candidates(self) -> list[CredentialSource]:
        """Return the source in use, else the first configured one, else all ambient ones."""
        if self._source is not None:
            return [self._source]
        sources = credential_sources(self._link)
        configured = [source for source in sources if source.is_configured]
        return configured[:1] or [source for source in sources if source.is_ambient]

    def _error_prefix(self) -> str:
        return f"Azure ({authority_host(self._link)}) must give a token"
