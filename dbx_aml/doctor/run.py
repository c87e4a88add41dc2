"""Preflight: everything that a job will need, looked at at once, before the job does.

A check is a function that takes the `Case` and returns a `Finding`; each module here has those of
one subject, in `CHECKS`. All of them start together and end together, whatever does not answer.
Nothing is created anywhere: hosts are asked, roles and permissions are looked up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial

from dbx_aml._common.deadline import start_in_thread
from dbx_aml._common.errors import DbxAmlError
from dbx_aml.doctor import azure, databricks, machine, network, packages, settings
from dbx_aml.doctor import unity_catalog as catalog
from dbx_aml.doctor.check_result import SKIPPED, Finding, SkippedError, failed, failed_by
from dbx_aml.doctor.check_result import without_secrets as clean
from dbx_aml.doctor.checks import Case
from dbx_aml.doctor.report import Report, Result
from dbx_aml.link.link import Link
from dbx_aml.models.model_uri import ModelUri

__all__ = ["Report", "Result", "run_doctor"]

# For every check, and so for all of them.
LIMIT_S = 5.0
Look = Callable[[Case], Finding]
CHECKS: dict[str, Look] = {
    **machine.CHECKS,
    **packages.CHECKS,
    **settings.CHECKS,
    **azure.CHECKS,
    **databricks.CHECKS,
    **catalog.CHECKS,
    **network.CHECKS,
}


def run_doctor(
    link: Link | None = None,
    *,
    config: str | None = None,
    model_uri: str | None = None,
    volume: str | None = None,
) -> Report:
    """Check everything that tracking, registering and scoring will need; creates nothing.

    Args:
        link: The settings to check. By default what `Link.load` finds.
        config: A `config.json` or its folder, as `Link.load` takes it.
        model_uri: A model whose requirements, and whose permissions in Unity Catalog, are looked
            at too, for example "models:/main.flights.delay@champion".
        volume: A volume whose permissions are looked at too, for example
            "/Volumes/main/flights/models".

    Returns:
        What was found, worst first; it prints as a table, and `failed` has what failed. Within
        five seconds, even where no host answers; with a model, after MLflow is imported.

    Raises:
        ModelUriError: `model_uri` names no model.
        ArgumentError: `volume` is no volume's path.
    """
    if model_uri is not None:
        ModelUri.parse(model_uri)
        import mlflow  # noqa: F401 - takes longer than a check may
    if volume is not None:
        catalog.volume_parts(volume)
    import requests  # noqa: F401 - its import is no part of any host's time

    end = time.monotonic() + LIMIT_S
    problem = None
    try:
        link = link or Link.load(config=config)
    except DbxAmlError as err:
        problem = err
    case = Case(
        link=link, problem=problem, config=config, end=end, model_uri=model_uri, volume=volume
    )
    begun_checks = {
        name: start_in_thread(partial(_looked, name, look, case)) for name, look in CHECKS.items()
    }
    results = [_ended(name, future, end) for name, future in begun_checks.items()]
    return Report([*results, _looked("clock", network.clock, case)])


def _looked(name: str, look: Look, case: Case) -> Result:
    started = time.monotonic()
    try:
        found = look(case)
    except SkippedError as err:
        found = Finding(state=SKIPPED, said=str(err))
    except DbxAmlError as err:
        found = failed_by(err)
    except Exception as err:  # noqa: BLE001 - one check that breaks must not hide the others
        found = failed(
            f"the check itself broke: {type(err).__name__}: {' '.join(str(err).split())[:240]}",
            "report it, with this line",
        )
    return _result(name, found, time.monotonic() - started)


def _ended(name: str, future: Future[Result], end: float) -> Result:
    try:
        return future.result(max(0.0, end - time.monotonic()))
    except FutureTimeoutError:
        found = failed(
            f"no answer in {LIMIT_S:.0f} s",
            "open the network to the hosts that failed, or set HTTPS_PROXY, then try again",
        )
        return _result(name, found, LIMIT_S)


def _result(name: str, found: Finding, seconds: float) -> Result:
    return Result(
        check=name,
        state=found.state,
        seconds=round(seconds, 3),
        said=clean(found.said),
        fix=clean(found.fix),
    )
