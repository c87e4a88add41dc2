"""An MLflow tracking server by its URI, and the two servers of a link."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.utils.rest_utils import http_request, verify_rest_response

from dbx_aml._common.chunks import split_chunks
from dbx_aml._common.daemon_threads import DaemonThreadPool
from dbx_aml._common.errors import MirrorError
from dbx_aml._common.http import bound_client, paged, send_within
from dbx_aml._common.redact import redact_uri
from dbx_aml._common.retry import service_policy
from dbx_aml.azure.client import AzureClient
from dbx_aml.azure.credentials import get_credential
from dbx_aml.azure.workspaces import check_workspace, with_tracking_uri
from dbx_aml.link.link import Link
from dbx_aml.link.uris import is_azureml_uri, is_databricks_uri
from dbx_aml.link.workspace import AmlWorkspace
from dbx_aml.models.mlflow_client import read_pages
from dbx_aml.models.mlflow_releases import artifact_repository
from dbx_aml.models.pages import run_url
from dbx_aml.tracking.servers import check_tracking_server

_EXPERIMENTS_PER_SEARCH = 100
_RUNS_PER_PAGE = 1000
_CHECK_TIMEOUT_S = 10.0
# Each try writes at least one entry more, so the limit is for a database that refuses one always.
_MAX_WRITE_TRIES = 10
_REMOTE_SCHEMES = ("databricks", "http", "https")


class MlflowServer:
    """An MLflow tracking server.

    Args:
        tracking_uri: For example "databricks", "azureml://..." or "sqlite:///mlflow.db".
        name: Role of the server in tags, "databricks" or "aml", also for a server in its place.
    """

    def __init__(self, tracking_uri: str, name: str) -> None:
        self.tracking_uri = tracking_uri
        self.name = name
        self.is_azureml = is_azureml_uri(tracking_uri)
        self.is_databricks = is_databricks_uri(tracking_uri)
        self.points_per_call = 250 if self.is_azureml else 1000
        self.points_per_page = 1000 if self.is_azureml else 25_000
        # Whether a page token of metrics is an offset; None until the first page was read.
        self.has_offset_tokens: bool | None = None
        self._experiment_names: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"MlflowServer({self.name!r})"

    @cached_property
    def store(self) -> Any:
        """MLflow's store for the URI."""
        if self.is_azureml:
            # MLflow holds a lock while it loads a store, so training would wait for this import.
            from dbx_aml.tracking.azureml.store import AmlTrackingStore

            return AmlTrackingStore.from_uri(self.tracking_uri)
        return bound_client(_get_store(store_uri=self.tracking_uri))

    @property
    def is_remote(self) -> bool:
        """Whether the store speaks MLflow's REST API, so that `request` works."""
        return isinstance(self.store, RestStore)

    def request(self, method: str, call: str, **content: Any) -> dict[str, Any]:
        """Return the JSON answer to a call of MLflow's REST API.

        MLflow's client turns each point of a metric into three objects on its way. That would be
        most of the time that mirroring takes.

        Args:
            method: "GET" or "POST".
            call: For example "metrics/get-history".
            content: `params` or `json`.
        """
        endpoint = f"/api/2.0/mlflow/{call}"
        host_creds = self.store.get_host_creds
        if self.is_azureml:
            from dbx_aml.tracking.azureml.mlflow_calls import send_request

            response = send_request(host_creds, method, endpoint, **content)
        else:
            with send_within(service_policy(), is_idempotent=True):
                response = http_request(host_creds(), endpoint, method, **content)
        answer: dict[str, Any] = verify_rest_response(response, endpoint).json()
        return answer

    def get_run(self, run_id: str) -> Run:
        """Return a run, also a deleted one."""
        run: Run = self.store.get_run(run_id)
        return run

    def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str,
        *,
        view_type: int = ViewType.ACTIVE_ONLY,
    ) -> Iterator[Run]:
        """Yield the runs of experiments that match a filter, each experiment's oldest run first."""
        for ids in split_chunks(experiment_ids, _EXPERIMENTS_PER_SEARCH):
            search = partial(
                self.store.search_runs,
                ids,
                filter_string,
                view_type,
                _RUNS_PER_PAGE,
                ["attributes.start_time ASC"],
            )
            yield from read_pages(search, "runs/search")

    def stored_runs(self, experiment_ids: Sequence[str]) -> Iterator[Run]:
        """Yield active runs as the service has them: in Azure ML without their overflow."""
        if not self.is_azureml:
            yield from self.search_runs(experiment_ids, "")
            return
        for ids in split_chunks(experiment_ids, _EXPERIMENTS_PER_SEARCH):
            search = partial(self.store._search_stored_runs, ids, "", _RUNS_PER_PAGE)
            yield from paged(search, "runs/search")

    def search_experiments(self, *, view_type: int = ViewType.ACTIVE_ONLY) -> Iterator[Experiment]:
        """Yield every experiment, by default every active one."""
        for experiment in read_pages(
            lambda token: self.store.search_experiments(
                view_type=view_type, max_results=_RUNS_PER_PAGE, page_token=token
            ),
            "experiments/search",
        ):
            self._experiment_names[experiment.experiment_id] = experiment.name
            yield experiment

    def find_experiment(self, name: str) -> Experiment | None:
        """Return the experiment of a name, or None."""
        experiment: Experiment | None = self.store.get_experiment_by_name(name)
        if experiment is not None:
            self._experiment_names[experiment.experiment_id] = experiment.name
        return experiment

    def experiment_name(self, experiment_id: str) -> str:
        """Return the name of an experiment, without a call if this object has read it before."""
        if experiment_id not in self._experiment_names:
            name = self.store.get_experiment(experiment_id).name
            self._experiment_names[experiment_id] = str(name)
        return self._experiment_names[experiment_id]

    def artifact_repository(self, artifact_uri: str) -> Any:
        """Return the repository of the artifacts below a URI of this server."""
        repository = artifact_repository(artifact_uri, self.tracking_uri)
        _use_daemon_threads(repository)
        return repository

    def run_url(self, run: Run) -> str | None:
        """Return the URL of a run's page, or None where the server has no pages."""
        return run_url(run.info.run_id, run.info.experiment_id, tracking_uri=self.tracking_uri)

    @cached_property
    def display_name(self) -> str:
        """Name of the server for people, without a password that its URI may have."""
        if self.is_azureml:
            return AmlWorkspace.from_tracking_uri(self.tracking_uri).workspace_name
        page = run_url("0", "0", tracking_uri=self.tracking_uri)
        if page:
            return page.partition("/#/")[0].partition("/ml/")[0]
        return redact_uri(self.tracking_uri)


def repeat_refused_write(write: Callable[[], None]) -> None:
    """Make calls that write to a server, and again if its database refuses an entry.

    Of two processes that insert the same entry, a SQL store refuses one. The next try finds the
    entry, and the store may refuse a later one. MLflow's REST client repeats such calls itself.

    Args:
        write: Function that reads what the server has, and writes what it lacks.
    """
    for tries_left in reversed(range(_MAX_WRITE_TRIES)):
        try:
            return write()
        except MlflowException as error:
            # The class of SQLAlchemy; the error code differs between releases of MLflow.
            is_refused = type(error.__context__).__name__ == "IntegrityError"
            if not is_refused or not tries_left:
                raise


def _use_daemon_threads(repository: ArtifactRepository) -> None:
    """Let the end of the process wait for no thread of a repository and of those in it."""

    def create_pool() -> DaemonThreadPool:
        return DaemonThreadPool(repository.max_workers)

    for name, value in list(vars(repository).items()):
        if isinstance(value, ThreadPoolExecutor):
            setattr(repository, name, create_pool())
        elif isinstance(value, ArtifactRepository):
            _use_daemon_threads(value)
    repository._create_thread_pool = create_pool  # type: ignore[method-assign]


def servers_of_link(
    link: Link,
    *,
    source_tracking_uri: str | None = None,
    destination_tracking_uri: str | None = None,
) -> tuple[MlflowServer, MlflowServer]:
    """Return source and destination: Databricks and Azure ML, in mode "aml" the reverse.

    Args:
        link: Link that names both servers; its mode tells which of them tracks.
        source_tracking_uri: MLflow URI in the place of the link's source.
        destination_tracking_uri: MLflow URI in the place of the link's destination.

    Raises:
        MirrorError: The link names one server only.
        LinkError: Azure Resource Manager does not return the workspace's tracking URI.
    """
    starts_in_aml = link.mode == "aml"
    if source_tracking_uri or destination_tracking_uri:
        starts_in_aml = is_azureml_uri(source_tracking_uri) or is_databricks_uri(
            destination_tracking_uri
        )
    names = ("aml", "databricks") if starts_in_aml else ("databricks", "aml")
    source_uri = source_tracking_uri or _tracking_uri(link, names[0])
    destination_uri = destination_tracking_uri or _tracking_uri(link, names[1])
    if source_uri == destination_uri:
        raise MirrorError(
            "source and destination must be two servers: got the same tracking URI for both, of "
            f"{MlflowServer(source_uri, names[0]).display_name}; give one of them with "
            "--source-tracking-uri or --destination-tracking-uri"
        )
    return MlflowServer(source_uri, names[0]), MlflowServer(destination_uri, names[1])


def _tracking_uri(link: Link, name: str) -> str:
    if name == "databricks":
        return link.databricks_tracking_uri
    if link.aml_tracking_uri is not None:
        return link.aml_tracking_uri
    if link.aml_workspace is None:
        raise MirrorError(
            "link must name an Azure ML workspace: got none; set DBX_AML_CONFIG to the "
            "workspace's config.json, or give --destination-tracking-uri"
        )
    client = AzureClient(get_credential(link))
    return str(with_tracking_uri(client, link.aml_workspace).tracking_uri)


def check_server(server: MlflowServer, link: Link) -> None:
    """Check within seconds that a server answers and lets the caller read.

    Args:
        server: Server to read one experiment from; the workspace itself for Azure ML.
        link: Link with the credential for Azure ML.

    Raises:
        LinkError: The server does not answer, or refuses the caller.
        CredentialError: Azure gives no token.
    """
    if server.is_azureml:
        workspace = AmlWorkspace.from_tracking_uri(server.tracking_uri)
        check_workspace(AzureClient(get_credential(link)), workspace)
    elif server.tracking_uri.partition(":")[0] in _REMOTE_SCHEMES:
        check_tracking_server(server.tracking_uri, _CHECK_TIMEOUT_S)
