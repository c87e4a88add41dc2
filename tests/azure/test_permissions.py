"""The actions of the steps: the custom role of the documentation allows all of them."""

import json
from pathlib import Path

from dbx_aml import AmlWorkspace
from dbx_aml.azure.permissions import ACTIONS, allowed_actions

ROLE = json.loads((Path(__file__).parents[2] / "docs" / "role.json").read_text())
WORKSPACE = AmlWorkspace(
    subscription_id="8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42",
    resource_group="rg-ml",
    workspace_name="mlw-team",
)


class RoleClient:
    """A client whose caller has one role."""

    def __init__(self, actions: list[str], denied_actions: list[str]) -> None:
        self._role = {"actions": actions, "notActions": denied_actions}

    def get(self, url: str) -> dict[str, object]:
        return {"value": [self._role]}


def test_the_documented_role_allows_every_step() -> None:
    client = RoleClient(ROLE["Actions"], ROLE["NotActions"])
    assert allowed_actions(client, WORKSPACE) == dict.fromkeys(ACTIONS, True)  # type: ignore[arg-type]


def test_a_step_is_allowed_only_with_all_of_its_actions() -> None:
    client = RoleClient(ROLE["Actions"], ["*/onlineEndpoints/listKeys/action"])
    allowed = allowed_actions(client, WORKSPACE)  # type: ignore[arg-type]
    assert [name for name, is_allowed in allowed.items() if not is_allowed] == ["deploy endpoints"]
