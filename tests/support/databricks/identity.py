"""The signed-in user, and the settings that a client reads from a host first."""

from typing import Any

from tests.support.databricks.principals import is_application_id
from tests.support.databricks.route import Call, Handler

WORKSPACE_ID = "7405600000000001"


class Identity:
    """The signed-in user and the host."""

    def __init__(self, user: str) -> None:
        self.user = user

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API."""
        return {
            "GET /api/2.0/preview/scim/v2/Me": self._current_user,
            "GET /.well-known/databricks-config": self._config,
            "POST /telemetry-ext": lambda call: {"errors": [], "numProtoSuccess": 1},
        }

    def _current_user(self, call: Call) -> dict[str, Any]:
        # A service principal has its application ID as user name, and no e-mail address.
        is_person = not is_application_id(self.user)
        emails = [{"type": "work", "value": self.user, "primary": True}] if is_person else []
        return {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "id": "1001",
            "userName": self.user,
            "displayName": self.user.partition("@")[0].title(),
            "active": True,
            "emails": emails,
            "groups": [{"display": "users", "type": "direct", "value": "2001"}],
        }

    def _config(self, call: Call) -> dict[str, Any]:
        host = call.request.headers.get("host", "")
        return {"oidc_endpoint": f"http://{host}/oidc", "workspace_id": WORKSPACE_ID}
