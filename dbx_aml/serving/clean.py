"""Find and delete what this package has made: `find_marked_resources`, `delete_resources`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from dbx_aml._common.errors import ArgumentError, NotFoundError
from dbx_aml._common.text import one_line
from dbx_aml.link.connected_link import current_link
from dbx_aml.link.link import Link
from dbx_aml.local.spark import current_spark
from dbx_aml.serving.marked_resources import (
    DELETED,
    GROUPS,
    MarkedResource,
    Search,
    is_of_service,
    read_marked_resources,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, kw_only=True)
class CleanPlan:
    """The resources that `delete_resources` deletes, and those that it leaves alone.

    Args:
        resources: Resources in the order of deletion.
        used_resources: Resources that are in use, which `include_used` adds to `resources`.
        problems: A line for each kind of resources that could not be read.
    """

    resources: tuple[MarkedResource, ...]
    used_resources: tuple[MarkedResource, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CleanResult:
    """The result of the deletion of a resource.

    Args:
        resource: Deleted resource.
        state: "deleted", "archived", "skipped" (it is not empty, or is used), or "failed".
        error: Reason of a failure; "" without a failure.
    """

    resource: MarkedResource
    state: str
    error: str = ""


def find_marked_resources(
    *,
    only: Sequence[str] = (),
    older_than: timedelta | None = None,
    experiment: str | None = None,
    schemas: Sequence[str] = (),
    paths: Sequence[str] = (),
    include_used: bool = False,
    link: Link | None = None,
    spark: SparkSession | None = None,
    report: Callable[[str], None] = lambda step: None,
) -> CleanPlan:
    """Return what this package has made in the services of a link, and in schemas of tables.

    Args:
        only: Groups: "endpoints", "jobs", "models", "runs", "environments", "tables"; by default
            all groups.
        older_than: Least age of a resource; a resource without a time counts as older.
        experiment: Databricks path or Azure ML name of the experiment whose runs count.
        schemas: Schemas whose tables count, for example ["main.ml"].
        paths: Paths of scored tables that count, each with its quarantine table.
        include_used: Whether resources in use are deleted too: an endpoint with traffic, a model
            version with an alias or behind such an endpoint, a table that another table was scored
            from.
        link: Link that has the services; by default the connected link.
        spark: Session that reads the tables; by default the active one.
        report: Function that is called with the name of each step.

    Raises:
        ArgumentError: There is no such group.
    """
    unknown_groups = sorted(set(only) - set(GROUPS))
    if unknown_groups:
        raise ArgumentError(
            f"only must name groups of {list(GROUPS)}: got {unknown_groups[0]!r}; use for example "
            "'endpoints,jobs'"
        )
    has_tables = bool(schemas or paths)
    if "tables" in only and not has_tables:
        raise ArgumentError(
            "tables must be named by a schema or a path: got none; pass for example --schema "
            "main.ml, or --path /Volumes/main/ml/data/scored"
        )
    if has_tables and spark is None and (not only or "tables" in only):
        report("Starting Spark")
        spark = current_spark()
    search = Search(
        link=link or current_link(),
        groups=tuple(only) or GROUPS,
        experiment=experiment,
        schemas=tuple(schemas),
        paths=tuple(paths),
        spark=spark if has_tables else None,
    )
    resources, problems = read_marked_resources(search, report)
    if experiment is not None and not only:
        resources = [resource for resource in resources if resource.group == "runs"]
    if older_than is not None:
        resources = [
            resource for resource in resources if resource.age is None or resource.age >= older_than
        ]
    used_resources = [resource for resource in resources if resource.usage]
    if not include_used:
        resources = [resource for resource in resources if not resource.usage]
    return CleanPlan(
        resources=tuple(resources),
        used_resources=() if include_used else tuple(used_resources),
        problems=tuple(problems),
    )


def delete_resources(
    resources: Iterable[MarkedResource],
    report: Callable[[int, MarkedResource], None] = lambda count, resource: None,
) -> list[CleanResult]:
    """Delete resources in their order; a failure does not stop the others.

    Args:
        resources: Resources of a `CleanPlan`.
        report: Function that is called before each resource, with the number of those before it.
    """
    results = []
    for count, resource in enumerate(resources):
        report(count, resource)
        try:
            results.append(CleanResult(resource=resource, state=resource.delete()))
        except NotFoundError:
            # An earlier call, or another person, has deleted it.
            results.append(CleanResult(resource=resource, state=DELETED))
        except Exception as err:
            if not is_of_service(err):
                raise
            results.append(CleanResult(resource=resource, state="failed", error=one_line(err, 600)))
    return results


def parse_age(text: str) -> timedelta:
    """Return an age, for example of "30d", "12h" or "2w".

    Raises:
        ArgumentError: The text is no number with "h", "d" or "w".
    """
    match = re.fullmatch(r"([0-9]{1,6})([hdw])", text)
    if match is None:
        raise ArgumentError(
            f"age must be a number of hours, days or weeks: got {text!r}; use for example '30d'"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
