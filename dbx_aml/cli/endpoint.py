"""`dbx-aml endpoint`: a registered model behind an online endpoint of Azure ML."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from dbx_aml._common.errors import ArgumentError, ServingError
from dbx_aml._common.text import plural
from dbx_aml.cli.options import config_option, json_option, load_link
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import (
    Column,
    print_fields,
    print_json,
    print_line,
    print_table,
    shown_fields,
)

if TYPE_CHECKING:
    from dbx_aml.serving.answer_comparison import AnswerComparison
    from dbx_aml.serving.endpoints import Endpoint
    from dbx_aml.serving.local_server import LocalEndpoint

deployment_option = click.option("--deployment", help="Deployment, for example 'green'.")


@click.group()
def endpoint() -> None:
    """Serve a model from an endpoint of Azure ML."""


@endpoint.command(name="try")
@click.option(
    "--model-uri",
    required=True,
    help="models:/NAME/VERSION, models:/NAME@ALIAS, runs:/ID/PATH, or a path.",
)
@click.option(
    "--input",
    "file",
    type=click.File(encoding="utf-8"),
    help='JSON file with {"columns": [...], "data": [...]}; - is stdin.',
)
@click.option("--registry", help="Registry of the model.  [default: the one that has it]")
@click.option("--port", type=click.IntRange(1, 65535), help="[default: a free one]")
@click.option("--keep", is_flag=True, help="Leave the server running until Ctrl-C.")
@config_option
@json_option
def try_(
    model_uri: str,
    file: TextIO | None,
    registry: str | None,
    port: int | None,
    keep: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """Serve a model on this machine, as Azure ML does.

    A deployment has the same environment, scoring server and scoring script. The answers for the
    model's input example, and for the rows of --input, are compared with pyfunc.predict.
    """
    from dbx_aml.serving.answer_comparison import compare_answers
    from dbx_aml.serving.local_server import try_endpoint
    from dbx_aml.serving.scoring_request import parse_rows

    inputs = {file.name: parse_rows(file.read())} if file else {}
    with ExitStack() as stack:
        with show_progress("Reading the link") as progress:
            server = stack.enter_context(
                try_endpoint(
                    model_uri,
                    registry=registry,
                    link=load_link(config),
                    port=port,
                    report=progress,
                )
            )
            progress("Comparing answers")
            comparisons = compare_answers(server, inputs)
        _print_trial(server, comparisons, inputs, as_json)
        if keep:
            with suppress(KeyboardInterrupt):
                print_line(f"serving at {server.url} until Ctrl-C", is_error=True)
                threading.Event().wait()
    for comparison in comparisons:
        if comparison.difference:
            raise ServingError(
                f"endpoint must answer as pyfunc.predict: got another answer for "
                f"{comparison.input}, {comparison.difference}"
            )


@endpoint.command()
@click.argument("name")
@click.option("--model-uri", help="Registered version, for example 'models:/delay@champion'.")
@click.option("--deployment", help="Its name.  [default: blue, or green while blue has traffic]")
@click.option(
    "--traffic",
    type=click.IntRange(0, 100),
    help="Percent of the requests for this deployment.  [default: 100]",
)
@click.option("--compute", help="'managed', or a Kubernetes compute.  [default: managed]")
@click.option("--instance-type", help="[default: Standard_DS3_v2 on managed compute]")
@click.option("--instance-count", type=click.IntRange(1), help="[default: 1]")
@click.option(
    "--auth-mode",
    type=click.Choice(["key", "aml_token", "aad_token"]),
    help="Secret that a caller needs; of a new endpoint.  [default: key]",
)
@click.option("--registry", help="Registry of the version.  [default: the one that has it]")
@click.option("--no-code", is_flag=True, help="Use Azure ML's own image and scoring script.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Deployment or endpoint in Azure ML's YAML.",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(1),
    default=3600.0,
    show_default=True,
    help="Longest time for the deployment.",
)
@config_option
@json_option
def deploy(name: str, config: str | None, as_json: bool, file: Path | None, **options: Any) -> None:
    """Deploy a model, and move traffic to it.

    NAME is the endpoint. It is made if it is missing. The new deployment must score a row of the
    model's input example before it gets traffic.
    """
    from dbx_aml.serving.deploy import deploy_model
    from dbx_aml.serving.yaml_file import read_deployment_file

    arguments = read_deployment_file(file, name, options["compute"]) if file else {}
    if options["model_uri"]:
        # The registry in the file belongs to the model in the file.
        arguments.pop("registry", None)
    # A job passes an empty text for an option that it leaves to its default. 0 % is a value.
    arguments |= {
        key: value
        for key, value in options.items()
        if value not in (None, "") and value is not False
    }
    if not arguments.get("model_uri"):
        raise ArgumentError("model_uri must be given: got none; pass --model-uri, or --file")
    with show_progress("Reading the link") as progress:
        result = deploy_model(
            name,
            **arguments,
            link=load_link(config),
            report=progress,
        )
    _print_endpoint(result, as_json)


@endpoint.command(name="list")
@config_option
@json_option
def list_endpoints(config: str | None, as_json: bool) -> None:
    """List endpoints and their deployments."""
    from dbx_aml.serving.endpoints import Endpoint, iterate_deployments

    with show_progress("Reading the endpoints"):
        endpoints = Endpoint.load_all(link=load_link(config))
    if as_json:
        print_json([_to_dict(item) for item in endpoints])
        return
    if not endpoints:
        print_line("no endpoints; make one with 'dbx-aml endpoint deploy'")
        return
    columns = [
        Column("endpoint"),
        Column("deployment"),
        Column("state"),
        Column("traffic", is_number=True),
        Column("model"),
        Column("compute", is_optional=True),
        Column("instances", is_number=True, is_optional=True),
    ]
    rows = [
        (item.name, "", item.state, "", "", item.compute, "")
        if deployment is None
        else (
            item.name,
            deployment.name,
            deployment.state,
            f"{deployment.traffic} %",
            deployment.model,
            item.compute,
            deployment.instance_count,
        )
        for item, deployment in iterate_deployments(endpoints)
    ]
    print_table(columns, rows)


@endpoint.command()
@click.argument("name")
@config_option
@json_option
def show(name: str, config: str | None, as_json: bool) -> None:
    """Show an endpoint with its deployments."""
    _print_endpoint(_load_endpoint(name, config), as_json)


@endpoint.command()
@click.argument("name")
@click.argument("shares", nargs=-1, required=True, metavar="DEPLOYMENT=PERCENT...")
@config_option
@json_option
def traffic(name: str, shares: tuple[str, ...], config: str | None, as_json: bool) -> None:
    """Set the traffic of deployments.

    For example: dbx-aml endpoint traffic delay blue=90 green=10
    """
    parsed_shares = dict(_parse_share(share) for share in shares)
    current = _load_endpoint(name, config)
    with show_progress("Moving traffic"):
        result = current.set_traffic(parsed_shares)
    _print_endpoint(result, as_json)


@endpoint.command()
@click.argument("name")
@deployment_option
@click.option(
    "--container",
    type=click.Choice(["inference-server", "storage-initializer"]),
    default="inference-server",
    show_default=True,
    help="Container of the deployment.",
)
@click.option("--max-lines", type=click.IntRange(1), default=100, show_default=True)
@config_option
def logs(
    name: str, deployment: str | None, container: str, max_lines: int, config: str | None
) -> None:
    """Print the last lines of a deployment's log."""
    current = _load_endpoint(name, config)
    with show_progress("Reading the log"):
        text = current.logs(deployment, container=container, max_lines=max_lines)
    print_line(text.rstrip())


@endpoint.command()
@click.argument("name")
@click.option(
    "--input",
    "file",
    type=click.File(encoding="utf-8"),
    required=True,
    help='JSON file with {"columns": [...], "index": [...], "data": [...]}; - is stdin.',
)
@deployment_option
@config_option
def score(name: str, file: Any, deployment: str | None, config: str | None) -> None:
    """Score rows, and print the answer as JSON."""
    from dbx_aml.serving.scoring_request import parse_rows

    rows = parse_rows(file.read())
    current = _load_endpoint(name, config)
    with show_progress("Scoring"):
        answer = current.score(rows, deployment=deployment)
    print_json(answer)


@endpoint.command()
@click.argument("name")
@click.option("--deployment", help="Delete this deployment alone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def delete(name: str, deployment: str | None, yes: bool, config: str | None) -> None:
    """Delete an endpoint, or one deployment."""
    current = _load_endpoint(name, config)
    names = ", ".join(item.name for item in current.deployments) or "no deployments"
    thing = f"deployment {deployment} of {name}" if deployment else f"endpoint {name} ({names})"
    if deployment:
        current.get_deployment(deployment)
    if not yes and not click.confirm(f"Delete {thing}?"):
        print_line("nothing was deleted")
        return
    with show_progress(f"Deleting {thing}"):
        current.delete(deployment)
    print_line(f"{thing} is deleted")


def _load_endpoint(name: str, config: str | None) -> Endpoint:
    from dbx_aml.serving.endpoints import Endpoint

    with show_progress("Reading the endpoint"):
        return Endpoint.load(name, link=load_link(config))


def _parse_share(text: str) -> tuple[str, int]:
    name, separator, percent = text.partition("=")
    if not separator or not percent.isascii() or not percent.isdigit():
        raise ArgumentError(
            f"traffic must be DEPLOYMENT=PERCENT: got {text!r}; write for example 'blue=90'"
        )
    return name, int(percent)


def _to_dict(item: Endpoint) -> dict[str, Any]:
    deployments = [asdict(deployment) for deployment in item.deployments]
    return {**shown_fields(item), "deployments": deployments}


def _print_endpoint(item: Endpoint, as_json: bool) -> None:
    if as_json:
        print_json(_to_dict(item))
        return
    print_fields(
        [
            ("endpoint", item.name),
            ("state", item.state),
            ("compute", item.compute),
            ("secret of callers", item.auth_mode),
            ("scoring URI", item.scoring_uri),
            ("page", item.page),
        ],
        is_prose=False,
    )
    if not item.deployments:
        print_line("\nno deployments")
        return
    columns = [
        Column("deployment"),
        Column("state"),
        Column("traffic", is_number=True),
        Column("model"),
        Column("instances", is_number=True),
        Column("type", is_optional=True),
        Column("copied from", is_optional=True),
    ]
    rows = [
        (
            deployment.name,
            deployment.state,
            f"{deployment.traffic} %",
            deployment.model,
            deployment.instance_count,
            deployment.instance_type,
            deployment.copied_from,
        )
        for deployment in item.deployments
    ]
    print_table(columns, rows, title="\nDeployments")


def _print_trial(
    server: LocalEndpoint,
    comparisons: Sequence[AnswerComparison],
    inputs: Mapping[str, Any],
    as_json: bool,
) -> None:
    from dbx_aml.serving.scoring_request import first_row, request_body

    examples = [server.input_example, *inputs.values()]
    rows = next((example for example in examples if example is not None), None)
    curl = ""
    if rows is not None:
        body = request_body(first_row(rows)).decode()
        curl = f"curl -H 'Content-Type: application/json' -d {shlex.quote(body)} {server.url}"
    environment = server.environment
    if as_json:
        print_json(
            {
                "model_uri": server.model_uri,
                "python": environment.python_version,
                "model_python": server.model_python,
                "environment": environment.environment.hash,
                "ready_after_s": round(server.start_s, 1),
                "url": server.url,
                "inputs": [asdict(comparison) for comparison in comparisons],
                "curl": curl,
            }
        )
        return
    python = environment.python_version
    if python != server.model_python:
        python += f"; the model was logged with {server.model_python}"
    packages = plural(environment.environment.package_count, "package")
    fields: list[tuple[str, Any]] = [
        ("model", server.model_uri),
        ("Python", python),
        ("environment", f"{environment.environment.hash}, {packages}"),
        ("ready after", f"{server.start_s:.1f} s"),
    ]
    for comparison in comparisons:
        result = comparison.difference or "equal to pyfunc.predict"
        time = f"{comparison.milliseconds:.1f} ms a request"
        fields.append((comparison.input, f"{plural(comparison.rows, 'row')}, {time}, {result}"))
    if not comparisons:
        fields.append(("answers", "none: the model has no input example; pass rows with --input"))
    fields.append(("request", curl))
    print_fields(fields, is_prose=False)
