"""The login side: Entra's token endpoint, and the managed identity of an App Service.

Errors carry the codes of the real service, because they are what a user searches for.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_urlsafe
from uuid import uuid4

import jwt
from cryptography import x509

from tests.support.azureml.token import Tokens
from tests.support.azureml.workspace import CLIENT_ID, LOGIN_HOST, TENANT_ID
from tests.support.http.messages import Request, Response, json_response, match_path

_GUEST_TENANTS = ("common", "organizations")
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_DEVICE_CODE_GRANTS = ("urn:ietf:params:oauth:grant-type:device_code", "device_code")


class Entra:
    """A tenant with one application.

    Attributes:
        client_secret: The application's secret, new at each start.
        federated_token: Content of a workload's token file.
        identity_header: Secret of the managed identity's endpoint.
    """

    def __init__(self, tokens: Tokens, certificate: Path) -> None:
        self._tokens = tokens
        self._certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
        self.client_secret = token_urlsafe(24)
        self.federated_token = token_urlsafe(48)
        self.identity_header = token_urlsafe(24)

    def respond(self, request: Request) -> Response:
        """Answer a request to the login host."""
        match = match_path(r"/([^/]+)/(.+)", request.path)
        if not match:
            return _error(404, "invalid_request", 900144, "The request has no tenant.")
        tenant, call = match[1], match[2].lower()
        if tenant not in (TENANT_ID, *_GUEST_TENANTS):
            return _error(
                400,
                "invalid_tenant" if request.method == "GET" else "invalid_request",
                90002,
                f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID "
                "and are signing into the correct cloud.",
            )
        if call == "discovery/instance":
            return _instance(tenant)
        if call == "v2.0/.well-known/openid-configuration":
            return _configuration(tenant)
        if call == "oauth2/v2.0/devicecode":
            return _device_code()
        if call == "oauth2/v2.0/token" and request.method == "POST":
            return self._token(request.form(), tenant)
        return Response(status=404)

    def managed_identity(self, request: Request) -> Response:
        """Answer at the managed identity's endpoint, which is plain HTTP on loopback."""
        if request.headers.get("x-identity-header") != self.identity_header:
            return json_response({"statusCode": 401, "message": "Identity header is wrong."}, 401)
        resource = request.query.get("resource", "")
        client_id = request.query.get("client_id", CLIENT_ID)
        if not resource or client_id != CLIENT_ID:
            message = "No User Assigned or Delegated Managed Identity found for specified ClientId"
            return json_response({"statusCode": 400, "message": message}, 400)
        token, ends = self._tokens.issue(client_id, resource)
        return json_response(
            {
                "access_token": token,
                "expires_on": str(ends),
                "resource": resource,
                "token_type": "Bearer",
                "client_id": client_id,
            }
        )

    def _token(self, form: dict[str, str], tenant: str) -> Response:
        if form.get("grant_type") in _DEVICE_CODE_GRANTS:
            return _error(400, "authorization_pending", 70016, "Pending end-user authorization.")
        if form.get("grant_type") != "client_credentials":
            return _error(400, "unsupported_grant_type", 70003, "The grant type is unsupported.")
        client_id = form.get("client_id", "")
        if client_id != CLIENT_ID:
            return _error(
                400,
                "unauthorized_client",
                700016,
                f"Application with identifier '{client_id}' was not found in the directory "
                f"'{tenant}'.",
            )
        if "client_assertion" in form:
            refused = self._assertion_problem(form)
            if refused:
                return _error(401, "invalid_client", 700027, refused)
        elif form.get("client_secret") != self.client_secret:
            return _error(
                401,
                "invalid_client",
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is "
                "the client secret value, not the client secret ID, for a secret added to app "
                f"'{client_id}'.",
            )
        resource, _, default = form.get("scope", "").rpartition("/")
        if default.split(" ")[0] != ".default":
            return _error(400, "invalid_scope", 1002012, "The scope must end with /.default.")
        token, ends = self._tokens.issue(client_id, resource)
        left = ends - int(time.time())
        return json_response(
            {
                "token_type": "Bearer",
                "expires_in": left,
                "ext_expires_in": left,
                "access_token": token,
            }
        )

    def _assertion_problem(self, form: dict[str, str]) -> str:
        """Return the problem of a client assertion: a federated token, or a signed token."""
        assertion = form["client_assertion"]
        if form.get("client_assertion_type") != _ASSERTION:
            return "Client assertion type is not supported."
        if assertion == self.federated_token:
            return ""
        try:
            claims = jwt.decode(
                assertion,
                self._certificate.public_key(),  # type: ignore[arg-type]  # RSA, made here
                algorithms=["RS256", "PS256"],
                options={"verify_aud": False},
            )
        except jwt.InvalidTokenError as error:
            return f"Client assertion failed signature validation: {error}."
        if claims.get("iss") != CLIENT_ID or LOGIN_HOST not in str(claims.get("aud")):
            return "Client assertion has the wrong issuer or audience."
        return ""


def _device_code() -> Response:
    """Return a code that no person ever enters."""
    page, code = "https://login.microsoft.com/device", "C0DE1234X"
    return json_response(
        {
            "user_code": code,
            "device_code": token_urlsafe(48),
            "verification_uri": page,
            "expires_in": 900,
            "interval": 5,
            "message": f"To sign in, use a web browser to open the page {page} and enter the code "
            f"{code} to authenticate.",
        }
    )


def _instance(tenant: str) -> Response:
    aliases = [LOGIN_HOST, "login.windows.net", "login.microsoft.com", "sts.windows.net"]
    return json_response(
        {
            "tenant_discovery_endpoint": _tenant_url(tenant) + "/v2.0/.well-known/"
            "openid-configuration",
            "api-version": "1.1",
            "metadata": [
                {
                    "preferred_network": LOGIN_HOST,
                    "preferred_cache": "login.windows.net",
                    "aliases": aliases,
                }
            ],
        }
    )


def _configuration(tenant: str) -> Response:
    url = _tenant_url(tenant)
    return json_response(
        {
            "token_endpoint": f"{url}/oauth2/v2.0/token",
            "authorization_endpoint": f"{url}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{url}/oauth2/v2.0/devicecode",
            "issuer": f"{_tenant_url(TENANT_ID)}/v2.0",
            "jwks_uri": f"{url}/discovery/v2.0/keys",
            "cloud_instance_name": "microsoftonline.com",
            "tenant_region_scope": "EU",
        }
    )


def _tenant_url(tenant: str) -> str:
    return f"https://{LOGIN_HOST}/{tenant}"


def _error(status: int, error: str, code: int, text: str) -> Response:
    trace, correlation = str(uuid4()), str(uuid4())
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return json_response(
        {
            "error": error,
            "error_description": f"AADSTS{code}: {text} Trace ID: {trace} Correlation ID: "
            f"{correlation} Timestamp: {now}",
            "error_codes": [code],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://{LOGIN_HOST}/error?code={code}",
        },
        status,
    )
