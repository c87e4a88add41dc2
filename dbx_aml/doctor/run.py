"""Run the checks: all start together and all end within five seconds, with or without an answer.

A check is a function from a `CheckContext` to a `CheckResult`. Each module of this folder has the
checks of one subject in its `CHECKS`. No check creates or changes anything in a service.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from functools import partial

from dbx_aml._common.deadline import start_in_thread
from dbx_aml._common.errors import DbxAmlError
from dbx_aml._common.text import one_line
from dbx_aml.doctor import (
    azure,
    databricks,
    machine,
    mlflow_server,
    network,
    packages,
    settings,
    unity_catalog,
)
from dbx_aml.doctor.check_result import CheckResult, SkippedError, failed, failed_with
from dbx_aml.doctor.checks import CheckContext
from dbx_aml.doctor.report import DoctorReport
from dbx_aml.link.link import Link
from dbx_aml.models.model_uri import ModelUri

# For each check, and therefore for all of them.
TIMEOUT_S = 5.0
Check = Callable[[CheckContext], CheckResult]
CHECKS: dict[str, Check] = {
    **machine.CHECKS,
    **packages.CHECKS,
    **settings.CHECKS,
    **azure.CHECKS,
    **databricks.CHECKS,
    **mlflow_server.CHECKS,
    **unity_catalog.CHECKS,
    **network.CHECKS,
}
LINK_CHECKS = (
    *("settings", "credential", "token", "tracking host", "workspace", "actions"),
    *("Databricks credential", "Databricks user", "MLflow server"),
)


def run_doctor(
    link: Link | None = None,
    *,
    config: str | None = None,
    model_uri: str | None = None,
    volume: str | None = None,
) -> DoctorReport:
    """Check everything that tracking, registering and scoring need; create nothing.

    Args:
        link: Settings to check. By default those that `Link.load` reads.
        config: Path of a `config.json` or its folder, as in `Link.load`.
        model_uri: Model whose requirements and Unity Catalog permissions are checked too, for
            example "models:/main.flights.delay@champion".
        volume: Volume whose permissions are checked too, for example
            "/Volumes/main/flights/models".

    Returns:
        The results, worst first. The report prints as a table. It is complete within five seconds,
        even if no host answers; importing MLflow for a model comes on top.

    Raises:
        ModelUriError: `model_uri` is not the URI of a model.
        ArgumentError: `volume` is not the path of a volume.
    """
    if model_uri is not None:
        ModelUri.parse(model_uri)
    if volume is not None:
        unity_catalog.split_volume_path(volume)
    link_error = None
    try:
        link = link or Link.load(config=config)
    except DbxAmlError as err:
        link_error = err
    _import_clients(link, with_mlflow=model_uri is not None)
    context = CheckContext(
        link=link,
        deadline=time.monotonic() + TIMEOUT_S,
        config=config,
        model_uri=model_uri,
        volume=volume,
        link_error=link_error,
    )
    results = _run_checks(CHECKS, context)
    # Last, because the checks of the hosts record the time of each host.
    return DoctorReport([*results, _run_check("clock", network.check_clock, context)])


def check_link(link: Link) -> DoctorReport:
    """Check the services of a link: credentials, hosts, workspace and permissions.

    Args:
        link: Settings to check. In mode "dual" both services are checked.

    Returns:
        The results, worst first, within five seconds.
    """
    _import_clients(link)
    context = CheckContext(link=link, deadline=time.monotonic() + TIMEOUT_S)
    return DoctorReport(_run_checks({name: CHECKS[name] for name in LINK_CHECKS}, context))


def _import_clients(link: Link | None, *, with_mlflow: bool = False) -> None:
    """Import what the checks need before their time starts: an import may take seconds."""
    import requests  # noqa: F401

    if with_mlflow or (link is not None and mlflow_server.needs_mlflow(link)):
        import mlflow  # noqa: F401


def _run_checks(checks: Mapping[str, Check], context: CheckContext) -> list[CheckResult]:
    futures = {
        name: start_in_thread(partial(_run_check, name, check, context))
        for name, check in checks.items()
    }
    return [_wait_for_result(name, future, context.deadline) for name, future in futures.items()]


def _run_check(name: str, check: Check, context: CheckContext) -> CheckResult:
    started = time.monotonic()
    try:
        result = check(context)
    except SkippedError as err:
        result = CheckResult(status="skipped", message=str(err))
    except DbxAmlError as err:
        result = failed_with(err)
    except Exception as err:  # noqa: BLE001 - an error in one check must not hide the others
        result = failed(
            f"the check itself raised {type(err).__name__}: {one_line(err, 240)}",
            "report this line to the maintainers",
        )
    seconds = round(time.monotonic() - started, 3)
    return replace(result, check=name, seconds=seconds).without_secrets()


def _wait_for_result(name: str, future: Future[CheckResult], deadline: float) -> CheckResult:
    try:
        return future.result(max(0.0, deadline - time.monotonic()))
    except FutureTimeoutError:
        result = failed(
            f"no answer in {TIMEOUT_S:.0f} s",
            "open the network to the hosts that failed, or set HTTPS_PROXY, then try again",
        )
    return replace(result, check=name, seconds=TIMEOUT_S)
