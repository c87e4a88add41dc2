"""Delete what this package has made, and nothing else: `find_things`, `delete_things`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from dbx_aml._common.errors import ArgumentError, NotFoundError
from dbx_aml._common.text import one_line
from dbx_aml.link.connected_link import connected_link
from dbx_aml.link.link import Link
from dbx_aml.local.spark import current_spark
from dbx_aml.serving.made_things import (
    DELETED,
    GROUPS,
    MadeThing,
    Search,
    find_made_things,
    is_of_service,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, kw_only=True)
class CleanPlan:
    """What a call of `delete_things` would delete.

    Args:
        things: Things in the order of deletion.
        used_things: Things that are in use, which `include_used` adds to `things`.
        problems: A line for each kind of things that could not be read.
    """

    things: tuple[MadeThing, ...]
    used_things: tuple[MadeThing, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CleanResult:
    """What happened to a thing.

    Args:
        thing: The thing.
        outcome: "deleted", "archived", "kept" (it is not empty), or "failed".
        error: Reason of a failure; "" without a failure.
    """

    thing: MadeThing
    outcome: str
    error: str = ""


def find_things(
    *,
    only: Sequence[str] = (),
    older_than: timedelta | None = None,
    experiment: str | None = None,
    schemas: Sequence[str] = (),
    include_used: bool = False,
    link: Link | None = None,
    spark: SparkSession | None = None,
    report: Callable[[str], None] = lambda step: None,
) -> CleanPlan:
    """Return what this package has made in the services of a link, and in schemas of tables.

    Args:
        only: Groups: "endpoints", "jobs", "models", "runs", "environments", "tables"; by default
            all groups.
        older_than: Least age of a thing; a thing without a time counts as older.
        experiment: Databricks path or Azure ML name of the experiment whose runs count.
        schemas: Schemas whose tables count, for example ["main.ml"]; no table counts without.
        include_used: Whether things in use are deleted too: an endpoint with traffic, a model
            version with an alias, a table that is the input of another one.
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
    if "tables" in only and not schemas:
        raise ArgumentError(
            "tables must be in a schema that is named: got none; pass for example --schema main.ml"
        )
    if schemas and spark is None and (not only or "tables" in only):
        report("Starting Spark")
        spark = current_spark()
    search = Search(
        link=link or connected_link() or Link.load(),
        groups=tuple(only) or GROUPS,
        experiment=experiment,
        schemas=tuple(schemas),
        spark=spark if schemas else None,
    )
    things, problems = find_made_things(search, report)
    if experiment is not None and not only:
        things = [thing for thing in things if thing.group == "runs"]
    if older_than is not None:
        things = [thing for thing in things if thing.age is None or thing.age >= older_than]
    used_things = [thing for thing in things if thing.in_use]
    if not include_used:
        things = [thing for thing in things if not thing.in_use]
    return CleanPlan(
        things=tuple(things),
        used_things=() if include_used else tuple(used_things),
        problems=tuple(problems),
    )


def delete_things(
    things: Iterable[MadeThing],
    report: Callable[[int, MadeThing], None] = lambda count, thing: None,
) -> list[CleanResult]:
    """Delete things in their order; a failure does not stop the others.

    Args:
        things: Things of a `CleanPlan`.
        report: Function that is called before each thing, with the number of those before it.
    """
    results = []
    for count, thing in enumerate(things):
        report(count, thing)
        try:
            results.append(CleanResult(thing=thing, outcome=thing.delete()))
        except NotFoundError:
            # An earlier call, or another person, has deleted it.
            results.append(CleanResult(thing=thing, outcome=DELETED))
        except Exception as err:
            if not is_of_service(err):
                raise
            results.append(CleanResult(thing=thing, outcome="failed", error=one_line(err, 600)))
    return results


def parse_age(text: str) -> timedelta:
    """Return an age, for example of "30d", "12h" or "2w".

    Raises:
        ArgumentError: The text is no number with "h", "d" or "w".
    """
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isascii() or not number.isdigit():
        raise ArgumentError(
            f"age must be a number of hours, days or weeks: got {text!r}; use for example '30d'"
        )
    return timedelta(**{_UNITS[unit]: int(number)})
