"""Permissions of the caller: the actions of its role without the actions that a test denies."""

from fnmatch import fnmatchcase

from tests.support.http.messages import match_path

_WORKSPACES = "Microsoft.MachineLearningServices/workspaces"
RUNS_WRITE = f"{_WORKSPACES}/experiments/runs/write"
ALL_ACTIONS = "*"

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
        denied: Denied actions, with `*` as a wildcard; "*" alone denies all.
    """

    def __init__(self) -> None:
        self.denied: tuple[str, ...] = ()

    def allows(self, action: str) -> bool:
        """Tell whether the caller may do this."""
        granted = any(_covers(pattern, action) for pattern in _ACTIONS)
        removed = any(_covers(pattern, action) for pattern in (*_NOT_ACTIONS, *self.denied))
        return granted and not removed

    def to_dict(self) -> dict[str, object]:
        """The answer of the management endpoint."""
        if ALL_ACTIONS in self.denied:
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
        path: Path below the workspace, for example "/api/2.0/mlflow/runs/create".
    """
    match = match_path(r"/api/[23]\.0/(?:preview/)?mlflow/([^/]+)(?:/(.+))?", path)
    if not match:
        verb = "read" if method == "GET" else "write"
        return f"{_WORKSPACES}/metadata/artifacts/{verb}"
    noun, call = match[1], match[2] or ""
    verb = "read" if method == "GET" or call.rpartition("/")[2] in _READS else "write"
    resource = {"experiments": "experiments", "runs": "experiments/runs"}.get(noun, "models")
    if noun == "metrics":
        resource = "experiments/runs"
    return f"{_WORKSPACES}/{resource}/{verb}"


def _covers(pattern: str, action: str) -> bool:
    return fnmatchcase(action.lower(), pattern.lower())
