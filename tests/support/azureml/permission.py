"""What the caller may do: the role's actions, less what a test has taken away."""

from fnmatch import fnmatchcase

from tests.support.http.messages import match_path

_WORKSPACES = "Microsoft.MachineLearningServices/workspaces"
RUNS_WRITE = f"{_WORKSPACES}/experiments/runs/write"
EVERYTHING = "*"

# The built-in role "AzureML Data Scientist".
_ACTIONS = tuple(f"{_WORKSPACES}/*/{verb}" for verb in ("read", "action", "delete", "write"))
_NOT_ACTIONS = (
    f"{_WORKSPACES}/delete",
    f"{_WORKSPACES}/write",
    f"{_WORKSPACES}/computes/*/write",
    f"{_WORKSPACES}/computes/*/delete",
    f"{_WORKSPACES}/computes/listKeys/action",
)
_READS = ("get", "get-by-name", "get-history", "get-latest-versions", "search", "list")


class Permissions:
    """The caller's role.

    Attributes:
        denied: Actions taken away, `*` allowed in them; "*" alone takes everything.
    """

    def __init__(self) -> None:
        self.denied: tuple[str, ...] = ()

    def allows(self, action: str) -> bool:
        """Tell whether the caller may do this."""
        given = any(_covers(pattern, action) for pattern in _ACTIONS)
        taken = any(_covers(pattern, action) for pattern in (*_NOT_ACTIONS, *self.denied))
        return given and not taken

    def as_json(self) -> dict[str, object]:
        """The answer of the management endpoint."""
        if EVERYTHING in self.denied:
            return {"value": []}
        return {
            "value": [
                {
                    "actions": list(_ACTIONS),
                    "notActions": [*_NOT_ACTIONS, *self.denied],
                    "dataActions": [],
                    "notDataActions": [],
                }
            ]
        }


def action_of(method: str, path: str) -> str:
    """Return the action that a request to the data plane needs.

    Args:
        method: In capitals.
        path: What follows the workspace, for example "/api/2.0/mlflow/runs/create".
    """
    found = match_path(r"/api/[23]\.0/(?:preview/)?mlflow/([^/]+)(?:/(.+))?", path)
    if not found:
        verb = "read" if method == "GET" else "write"
        return f"{_WORKSPACES}/metadata/artifacts/{verb}"
    noun, call = found[1], found[2] or ""
    verb = "read" if method == "GET" or call.rpartition("/")[2] in _READS else "write"
    resource = {"experiments": "experiments", "runs": "experiments/runs"}.get(noun, "models")
    if noun == "metrics":
        resource = "experiments/runs"
    return f"{_WORKSPACES}/{resource}/{verb}"


def _covers(pattern: str, action: str) -> bool:
    return fnmatchcase(action.lower(), pattern.lower())
