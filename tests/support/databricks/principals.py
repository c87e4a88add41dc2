"""Users, groups and service principals, and how the platform refuses a name that is none of them.

| request | refused | answer | source |
|---|---|---|---|
| grant in Unity Catalog | a workspace group such as `users` or `admins` | 404, "Could not find principal with name users" | databricks/terraform-provider-databricks issues 5045 and 1773; Databricks, "Manage privileges in Unity Catalog": Unity Catalog takes principals of the account |
| permission of a `user_name` | an application ID: no user has that name | 404, "Principal: UserName(...) does not exist" | databricks/cli issue 4488 |
| permission of a `service_principal_name` | any name but an application ID | 404, "Principal: ServicePrincipalName(...) does not exist" | databricks/terraform-provider-databricks issue 1415 |
| permission of a `group_name` | `account users` | 404, "Principal: GroupName(...) does not exist" | the form of the two rows above |
| notification of a job | a text that is no e-mail address | 400; the words are ours | Databricks, Jobs API, `email_notifications`: "a list of email addresses" |
"""  # noqa: E501 (the rows of a table)

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.databricks.route import Problem, invalid_parameter, resource_not_found

_WORKSPACE_GROUPS = ("users", "admins")
_ACCOUNT_USERS = "account users"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def is_application_id(name: str) -> bool:
    """Return whether a name is an application ID, the name of a service principal."""
    return _UUID.fullmatch(name) is not None


def check_grantee(name: str) -> None:
    """Refuse a principal that Unity Catalog does not know."""
    if name in _WORKSPACE_GROUPS:
        message = f"Could not find principal with name {name}"
        raise Problem(404, "PRINCIPAL_DOES_NOT_EXIST", message)


def check_access_list(entries: list[Mapping[str, Any]]) -> None:
    """Refuse an entry whose user, group or service principal the workspace does not know."""
    for entry in entries:
        for field, kind, is_known in (
            ("user_name", "UserName", _EMAIL.fullmatch),
            ("service_principal_name", "ServicePrincipalName", _UUID.fullmatch),
            ("group_name", "GroupName", lambda name: name != _ACCOUNT_USERS),
        ):
            if field in entry and not is_known(entry[field]):
                raise resource_not_found(f"Principal: {kind}({entry[field]}) does not exist")


def check_notifications(settings: Mapping[str, Any]) -> None:
    """Refuse notifications of a job or its tasks to something that is no e-mail address."""
    for address in _addresses([settings, *settings.get("tasks", [])]):
        if not _EMAIL.fullmatch(address):
            raise invalid_parameter(f"Invalid email address: {address}")


def _addresses(settings: list[Mapping[str, Any]]) -> Iterator[str]:
    for part in settings:
        for addresses in part.get("email_notifications", {}).values():
            if isinstance(addresses, list):
                yield from addresses
