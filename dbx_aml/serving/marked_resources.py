"""Everything that carries the mark of this package, and how each resource is deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from dbx_aml._common.creation_mark import CREATED_AT_TAG, CREATED_BY_TAG
from dbx_aml._common.errors import DbxAmlError, ScoringError, ServiceError, ServingError
from dbx_aml._common.text import sql_identifier
from dbx_aml.azure.prices import read_hourly_prices
from dbx_aml.link.connected_link import use_link
from dbx_aml.link.link import Link
from dbx_aml.link.uris import is_azureml_uri, is_unity_catalog_uri
from dbx_aml.models.copy import list_versions
from dbx_aml.models.lineage import ARTIFACTS_SHA256, version_tags_for
from dbx_aml.models.mlflow_client import read_pages
from dbx_aml.models.registries import AML, Registry, linked_registries
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.delta_write import CHECKPOINT_PROPERTY
from dbx_aml.scoring.table_identity import TableIdentity, identify_table
from dbx_aml.serving.aml_resources import AmlResources
from dbx_aml.serving.deploy import split_traffic
from dbx_aml.serving.endpoints import MANAGED, Deployment, Endpoint
from dbx_aml.serving.jobs import Job, job_path
from dbx_aml.serving.submit import JOB_CONTENT_HASH
from dbx_aml.tracking.mirror.server import MlflowServer

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from pyspark.sql import SparkSession

# What `clean --only` takes, in the order of deletion.
GROUPS = ("endpoints", "jobs", "models", "runs", "environments", "tables")
DELETED, ARCHIVED, SKIPPED = "deleted", "archived", "skipped"


@dataclass(frozen=True, kw_only=True)
class MarkedResource:
    """A resource that this package has made.

    Args:
        group: Group of `clean --only`, for example "endpoints".
        kind: For example "deployment", "model version" or "table".
        name: Name, for example "delay:3".
        service: Service that has it, for example "Azure ML workspace mlw-team".
        created_at: Time at which it was made, in UTC; None if the mark has no time.
        detail: Size or instances; "" if unknown.
        usd_a_day: Retail price of its instances for 24 hours in USD; None if unknown.
        usage: Use of the resource, for example "takes traffic"; "" for nothing known.
        delete: Function that deletes it and returns DELETED, ARCHIVED or SKIPPED.
    """

    group: str
    kind: str
    name: str
    service: str
    created_at: datetime | None
    detail: str = ""
    usd_a_day: float | None = None
    usage: str = ""
    delete: Callable[[], str] = field(repr=False, compare=False)

    @property
    def age(self) -> timedelta | None:
        """Time since it was made."""
        return None if self.created_at is None else datetime.now(UTC) - self.created_at


@dataclass(frozen=True, kw_only=True)
class Search:
    """The services and groups of a search.

    Args:
        link: Link that has the services.
        groups: Groups of `GROUPS`.
        experiment: Path or name of the experiment whose runs count; None for all experiments.
        schemas: Schemas whose tables count, for example ("main.ml",).
        paths: Paths of scored tables that count, each with its quarantine table.
        spark: Session that reads the tables; None without schemas and paths.
    """

    link: Link
    groups: tuple[str, ...]
    experiment: str | None
    schemas: tuple[str, ...]
    paths: tuple[str, ...]
    spark: SparkSession | None


def read_marked_resources(
    search: Search, report: Callable[[str], None]
) -> tuple[list[MarkedResource], list[str]]:
    """Return what carries the mark, in the order of deletion, and what could not be read.

    Args:
        search: The services and groups of a search.
        report: Function that is called with the name of each step.
    """
    resources: list[MarkedResource] = []
    problems = []
    with use_link(search.link):
        for group, noun, read in _readers(search):
            if group not in search.groups:
                continue
            report(f"Reading {noun}")
            try:
                resources += read()
            except Exception as err:
                if not is_of_service(err):
                    raise
                problems.append(f"{noun} must be readable: got {err}")
    return [
        replace(resource, delete=partial(_delete_with_link, search.link, resource.delete))
        for resource in resources
    ], problems


def _delete_with_link(link: Link, delete: Callable[[], str]) -> str:
    with use_link(link):
        return delete()


def _readers(search: Search) -> Iterator[tuple[str, str, Callable[[], Iterable[MarkedResource]]]]:
    """Yield the parts of a search: each is read by itself, and may fail by itself."""
    link = search.link
    has_workspace = link.aml_workspace is not None
    registries = list({item.uri: item for item in linked_registries(link)}.values())
    if link.mode == link.registry == AML:
        # Such a link may not even have a Databricks workspace.
        registries = [item for item in registries if item.word == AML]
    tracking_uris = dict.fromkeys(item.tracking_uri for item in registries)
    if has_workspace:
        resources = AmlResources.of_link(link)
        yield "endpoints", "endpoints", partial(_endpoints, resources)
        yield "jobs", "jobs", partial(_jobs, resources)
    for registry in registries:
        served_in = resources if has_workspace and registry.word == AML else None
        yield "models", f"models of {registry.title}", partial(_models, registry, served_in)
    for uri in tracking_uris:
        server = MlflowServer(uri, "aml" if is_azureml_uri(uri) else "databricks")
        noun = f"runs of {server.display_name}"
        same_server = [item for item in registries if item.tracking_uri == uri]
        yield "runs", noun, partial(_runs, server, same_server, search.experiment)
    if has_workspace:
        yield "environments", "environments and code", partial(_environments, resources)
    if search.spark is not None:
        yield "tables", "tables", partial(_tables, search.spark, search)


def is_of_service(error: Exception) -> bool:
    """Tell whether an error is a service's or Spark's, after which other resources can go on."""
    from mlflow.exceptions import MlflowException

    from dbx_aml.scoring.spark_errors import SPARK_ERRORS

    return isinstance(error, (DbxAmlError, MlflowException, *SPARK_ERRORS))


def _endpoints(resources: AmlResources) -> Iterator[MarkedResource]:
    endpoints = Endpoint.read_all(resources)
    prices = _hourly_prices(resources, endpoints)
    for endpoint in endpoints:
        others = [item for item in endpoint.deployments if CREATED_BY_TAG not in item.tags]
        is_whole = CREATED_BY_TAG in endpoint.tags and not others
        instances = [
            f"{item.instance_count} x {item.instance_type or item.compute}"
            for item in endpoint.deployments
        ]
        if is_whole:
            yield MarkedResource(
                group="endpoints",
                kind="endpoint",
                name=endpoint.name,
                service=_service_name(resources),
                created_at=_creation_time(endpoint.tags),
                detail=", ".join(instances),
                usd_a_day=_usd_a_day(endpoint.deployments, prices),
                usage="takes traffic" if any(endpoint.traffic.values()) else "",
                delete=partial(_delete_endpoint, endpoint),
            )
            continue
        for item, text in zip(endpoint.deployments, instances, strict=True):
            if CREATED_BY_TAG in item.tags:
                yield MarkedResource(
                    group="endpoints",
                    kind="deployment",
                    name=f"{endpoint.name}/{item.name}",
                    service=_service_name(resources),
                    created_at=_creation_time(item.tags),
                    detail=text,
                    usd_a_day=_usd_a_day([item], prices),
                    usage=f"takes {item.traffic} % of the traffic" if item.traffic else "",
                    delete=partial(_delete_deployment, endpoint, item),
                )


def _hourly_prices(resources: AmlResources, endpoints: Sequence[Endpoint]) -> dict[str, float]:
    """Return the price of an hour in USD by instance type, where it is known."""
    types = [
        item.instance_type
        for endpoint in endpoints
        for item in endpoint.deployments
        if item.compute == MANAGED and CREATED_BY_TAG in item.tags
    ]
    # The prices are those of the public cloud.
    if not types or resources.workspace.cloud != "AzureCloud":
        return {}
    try:
        return read_hourly_prices(resources.location, types)
    except DbxAmlError:
        # The caller may read endpoints, but not the workspace, which names the region.
        return {}


def _usd_a_day(deployments: Iterable[Deployment], prices: Mapping[str, float]) -> float | None:
    """Return what the instances cost in 24 hours; None if that is not known."""
    items = list(deployments)
    # A deployment that failed may have instances or not.
    known = [item for item in items if item.instance_type in prices and item.state == "Succeeded"]
    if not items or len(known) < len(items):
        return None
    return round(sum(24 * item.instance_count * prices[item.instance_type] for item in items), 2)


def _delete_endpoint(endpoint: Endpoint) -> str:
    current = Endpoint.find(endpoint.resources, endpoint.name)
    if current is None:
        return DELETED
    # Since the list, traffic may have moved to it, or others may have deployed to it.
    has_new_traffic = any(current.traffic.values()) and not any(endpoint.traffic.values())
    all_tags = [current.tags, *(item.tags for item in current.deployments)]
    if has_new_traffic or not all(CREATED_BY_TAG in tags for tags in all_tags):
        return SKIPPED
    current.delete()
    return DELETED


def _delete_deployment(endpoint: Endpoint, deployment: Deployment) -> str:
    current = Endpoint.find(endpoint.resources, endpoint.name)
    item = current and current.find_deployment(deployment.name)
    if current is None or item is None:
        return DELETED
    # As for an endpoint.
    if (item.traffic and not deployment.traffic) or CREATED_BY_TAG not in item.tags:
        return SKIPPED
    if item.traffic:
        # Azure deletes no deployment with traffic.
        shares = split_traffic(current.traffic, item.name, 0)
        current = current.set_traffic({item.name: 0, **shares})
    current.delete(item.name)
    return DELETED


def _jobs(resources: AmlResources) -> Iterator[MarkedResource]:
    for job in Job.iterate(resources):
        if CREATED_BY_TAG in job.tags:
            yield MarkedResource(
                group="jobs",
                kind="job",
                name=job.name,
                service=_service_name(resources),
                created_at=_creation_time(job.tags),
                detail=job.state,
                delete=partial(_delete_job, resources, job.name),
            )


def _delete_job(resources: AmlResources, name: str) -> str:
    # It may have started, ended or gone since it was listed.
    job = Job.find(resources, name)
    if job is None:
        return DELETED
    job.cancel()
    resources.client.delete(resources.url(job_path(name)))
    return DELETED


def _models(registry: Registry, served_in: AmlResources | None) -> Iterator[MarkedResource]:
    by, at = version_tags_for(registry.uri, {CREATED_BY_TAG: "", CREATED_AT_TAG: ""})
    deployments = _find_deployments(served_in) if served_in else {}
    models = []
    for model in _registered_models(registry):
        versions = list_versions(registry, model.name)
        marked = [version for version in versions if by in version.tags]
        for version in marked:
            deployment = deployments.get(f"{version.name}:{version.version}", "")
            yield _model_version(registry, version, at, deployment)
        if by in model.tags and len(marked) == len(versions):
            models.append(model)
    # A registered model is empty after its versions are deleted.
    for model in models:
        yield MarkedResource(
            group="models",
            kind="registered model",
            name=model.name,
            service=registry.title,
            created_at=_parse_time(model.tags.get(at)),
            delete=partial(_delete_empty_model, registry, model.name),
        )


def _find_deployments(resources: AmlResources) -> dict[str, str]:
    """Return by served version, as "delay:3", a deployment that stays with its traffic or owner."""
    try:
        endpoints = Endpoint.read_all(resources)
    except ServiceError:
        # The caller may see models, but not endpoints.
        return {}
    return {
        item.model: f"{endpoint.name}/{item.name}"
        for endpoint in endpoints
        for item in endpoint.deployments
        if item.traffic or CREATED_BY_TAG not in item.tags
    }


def _registered_models(registry: Registry) -> Iterator[RegisteredModel]:
    client = registry.client
    models = read_pages(
        lambda token: client.search_registered_models(max_results=100, page_token=token),
        "registered-models/search",
    )
    # The search in Unity Catalog leaves tags out.
    is_bare = is_unity_catalog_uri(registry.uri)
    return (client.get_registered_model(model.name) if is_bare else model for model in models)


def _model_version(
    registry: Registry, version: ModelVersion, made_at_tag: str, deployment: str
) -> MarkedResource:
    aliases = ", ".join(version.aliases or [])
    usages = [f"has the alias {aliases}"] if aliases else []
    usages += [f"is served by {deployment}"] if deployment else []

    def delete() -> str:
        name, number = version.name, str(version.version)
        # An alias may have moved to it since it was listed.
        if not aliases and registry.client.get_model_version(name, number).aliases:
            return SKIPPED
        registry.client.delete_model_version(name, number)
        return DELETED

    return MarkedResource(
        group="models",
        kind="model version",
        name=f"{version.name}:{version.version}",
        service=registry.title,
        created_at=_parse_time(version.tags.get(made_at_tag)),
        usage=" and ".join(usages),
        delete=delete,
    )


def _delete_empty_model(registry: Registry, name: str) -> str:
    if list_versions(registry, name):
        return SKIPPED
    registry.client.delete_registered_model(name)
    return DELETED


def _runs(
    server: MlflowServer, registries: Sequence[Registry], experiment_name: str | None
) -> Iterator[MarkedResource]:
    service = f"MLflow of {server.display_name}"
    experiments = []
    for experiment in server.search_experiments():
        if experiment_name not in (None, experiment.name):
            continue
        runs = [
            run
            for run in server.search_runs([experiment.experiment_id], "")
            # The run of a job has its tags, and is deleted with the job.
            if JOB_CONTENT_HASH not in run.data.tags
        ]
        marked = [run for run in runs if CREATED_BY_TAG in run.data.tags]
        yield from (_run(server, registries, run, service) for run in marked)
        if CREATED_BY_TAG in experiment.tags and len(marked) == len(runs):
            experiments.append(experiment)
    for experiment in experiments:
        yield MarkedResource(
            group="runs",
            kind="experiment",
            name=experiment.name,
            service=service,
            created_at=_creation_time(experiment.tags),
            delete=partial(_delete_empty_experiment, server, experiment.experiment_id),
        )


def _run(
    server: MlflowServer, registries: Sequence[Registry], run: Run, service: str
) -> MarkedResource:
    def delete() -> str:
        # A copied version has no files but the files of this run.
        is_copy = ARTIFACTS_SHA256 in run.data.tags
        filter_string = f"run_id = '{run.info.run_id}'"
        if is_copy and any(item.client.search_model_versions(filter_string) for item in registries):
            return SKIPPED
        server.store.delete_run(run.info.run_id)
        return DELETED

    return MarkedResource(
        group="runs",
        kind="run",
        name=f"{run.info.run_name} {run.info.run_id}",
        service=service,
        created_at=_creation_time(run.data.tags),
        detail=run.info.status,
        delete=delete,
    )


def _delete_empty_experiment(server: MlflowServer, experiment_id: str) -> str:
    if next(server.search_runs([experiment_id], ""), None) is not None:
        return SKIPPED
    server.store.delete_experiment(experiment_id)
    return DELETED


def _environments(resources: AmlResources) -> Iterator[MarkedResource]:
    for kind, collection in (("environment", "environments"), ("code", "codes")):
        for container in resources.list(f"/{collection}"):
            for version in resources.list(f"/{collection}/{container['name']}/versions"):
                properties = version["properties"]
                tags = properties.get("tags") or {}
                if CREATED_BY_TAG not in tags or properties.get("isArchived"):
                    continue
                path = f"/{collection}/{container['name']}/versions/{version['name']}"
                yield MarkedResource(
                    group="environments",
                    kind=kind,
                    name=f"{container['name']}:{version['name']}",
                    service=_service_name(resources),
                    created_at=_creation_time(tags),
                    delete=partial(_archive, resources, path),
                )


def _archive(resources: AmlResources, path: str) -> str:
    """Archive a version: Azure ML deletes neither environments nor code."""
    content = resources.find(path)
    if content is None:
        return DELETED
    resources.put(path, {"properties": {**content["properties"], "isArchived": True}})
    return ARCHIVED


def _tables(spark: SparkSession, search: Search) -> Iterator[MarkedResource]:
    marked: dict[str, TableIdentity] = {}
    for name in _table_names(spark, search):
        identity = _find_identity(spark, name)
        if identity is not None and CREATED_BY_TAG in identity.properties:
            marked[name] = identity
    inputs = {name: _inputs_of(spark, name) for name in marked}
    for name, identity in marked.items():
        readers = [other for other in marked if identity.id in inputs[other]]
        yield MarkedResource(
            group="tables",
            kind="table",
            name=Table(name).path or name.replace("`", ""),
            service="Spark",
            created_at=_creation_time(identity.properties),
            detail=f"{identity.size_bytes or 0:,} bytes",
            usage=f"is the input of {readers[0].replace('`', '')}" if readers else "",
            delete=partial(_drop_table, spark, name, identity),
        )


def _table_names(spark: SparkSession, search: Search) -> Iterator[str]:
    for schema in search.schemas:
        quoted = ".".join(map(sql_identifier, schema.split(".")))
        for row in spark.sql(f"SHOW TABLES IN {quoted}").collect():
            if not row["isTemporary"]:
                yield f"{quoted}.{sql_identifier(row['tableName'])}"
    for path in search.paths:
        table = Table(f"delta.`{path}`")
        yield table.name
        yield table.sibling("quarantine").name


def _find_identity(spark: SparkSession, name: str) -> TableIdentity | None:
    try:
        return identify_table(spark, Table(name))
    except ScoringError:
        # The caller may not read the table: its mark is not known.
        return None


def _inputs_of(spark: SparkSession, name: str) -> set[str]:
    """Return the ids of the tables that were scored into a table."""
    ledger = Table(name).sibling("batches")
    if not ledger.exists(spark):
        return set()
    rows = ledger.read(spark).select("input_id").distinct().collect()
    return {str(row["input_id"]) for row in rows}


def _drop_table(spark: SparkSession, name: str, listed: TableIdentity) -> str:
    """Drop a table with its ledger, and remove the folder of its checkpoint.

    The table is the last one of them that can be listed again, so it goes after them.
    """
    from dbx_aml.scoring.delta_write import drop_table, remove_folder

    current = _find_identity(spark, name)
    if current is not None and (
        current.id != listed.id or CREATED_BY_TAG not in current.properties
    ):
        # Another table has got its name since it was listed.
        return SKIPPED
    checkpoint = listed.properties.get(CHECKPOINT_PROPERTY)
    has_checkpoint = bool(checkpoint) and not remove_folder(spark, str(checkpoint))
    table = Table(name)
    for item in (table.sibling("batches"), table):
        if not drop_table(spark, item):
            raise ServingError(
                f"table by path must be removed by hand: got {item.path!r}, a folder that Spark "
                "Connect cannot remove"
            )
    if has_checkpoint:
        raise ServingError(
            f"checkpoint of the dropped table {name} must be removed by hand: got {checkpoint!r}, "
            "a folder that Spark Connect cannot remove"
        )
    return DELETED


def _service_name(resources: AmlResources) -> str:
    return f"Azure ML workspace {resources.workspace.workspace_name}"


def _creation_time(tags: Mapping[str, str]) -> datetime | None:
    return _parse_time(tags.get(CREATED_AT_TAG))


def _parse_time(text: str | None) -> datetime | None:
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
