"""Access tokens: made by the login side, really checked by the data plane."""

import time
from contextlib import suppress
from secrets import token_bytes
from threading import Lock
from typing import Any
from uuid import uuid4

import jwt

from tests.support.azureml.workspace import MANAGEMENT_HOST, OBJECT_ID, TENANT_ID

# What the data plane takes: a token for the management endpoint, or for Azure ML itself.
_AUDIENCES = (f"https://{MANAGEMENT_HOST}", "https://ml.azure.com")
_DEFAULT_LIFETIME_S = 3600.0


class Tokens:
    """Issues tokens and tells whether one is good.

    Attributes:
        lifetime_s: Seconds that tokens issued from now on are good for.
    """

    def __init__(self) -> None:
        self._keys = [token_bytes(32)]
        self._lock = Lock()
        self.reset()

    def reset(self) -> None:
        """Put the lifetime back, and accept revoked tokens again.

        A process of tests keeps clients with their tokens for later tests.
        """
        self.lifetime_s = _DEFAULT_LIFETIME_S
        with self._lock:
            self._accepted_keys = self._keys

    def revoke_all(self) -> None:
        """Answer 401 to every token issued so far."""
        with self._lock:
            key = token_bytes(32)
            self._keys, self._accepted_keys = [*self._keys, key], [key]

    def issue(self, client_id: str, resource: str) -> tuple[str, int]:
        """Return a token and the second it ends, as Unix time.

        Args:
            client_id: Application the token is for.
            resource: Audience, for example "https://management.azure.com/".
        """
        now = time.time()
        ends = int(now + self.lifetime_s)
        claims = {
            "aud": resource.rstrip("/"),
            "iss": f"https://sts.windows.net/{TENANT_ID}/",
            "iat": int(now),
            "nbf": int(now),
            "exp": ends,
            "appid": client_id,
            "idtyp": "app",
            "oid": OBJECT_ID,
            "sub": OBJECT_ID,
            "tid": TENANT_ID,
            "uti": uuid4().hex,
            "ver": "1.0",
        }
        return jwt.encode(claims, self._keys[-1], algorithm="HS256"), ends

    def problem(self, authorization: str) -> str:
        """Return why a header is refused; empty where its token is good.

        Args:
            authorization: Value of the Authorization header, or empty.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return "Bearer token not provided."
        try:
            claims = self._read_claims(token)
        except jwt.ExpiredSignatureError:
            return "The token has expired."
        except jwt.InvalidAudienceError:
            return "The access token has the wrong audience."
        except jwt.InvalidTokenError:
            return "The access token could not be verified."
        if claims["tid"] != TENANT_ID:
            return "The access token is from the wrong tenant."
        return ""

    def _read_claims(self, token: str) -> dict[str, Any]:
        *older_keys, newest_key = self._accepted_keys
        for key in older_keys:
            with suppress(jwt.InvalidSignatureError):
                return self._decode(token, key)
        return self._decode(token, newest_key)

    def _decode(self, token: str, key: bytes) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=["HS256"], audience=_AUDIENCES)
        return claims
