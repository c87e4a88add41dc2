"""The pytest plugin `dbx_aml`: Spark, MLflow and notebooks of this machine as fixtures.

This module imports only pytest, because pytest loads it in every run. A fixture imports Spark,
MLflow or IPython when a test asks for it. The option `-p no:dbx_aml` turns the plugin off.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from dbx_aml.testing.notebooks import NotebookOutcome
    from dbx_aml.testing.scored_rows import ScoredRows

_CONF = "dbx_aml_spark_conf"
_CONNECT, _KAFKA = "--dbx-aml-connect", "--dbx-aml-kafka"
# The session of the fixture `spark` while it runs, and the reason why no test can use it any more.
_SESSION = pytest.StashKey[Any]()
_UNUSABLE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the fixture `spark`."""
    group = parser.getgroup("dbx-aml")
    group.addoption(
        _CONNECT, action="store_true", help="the fixture spark is a Spark Connect session"
    )
    group.addoption(_KAFKA, action="store_true", help="the fixture spark reads Kafka topics")
    parser.addini(
        _CONF,
        type="linelist",
        help="Spark settings of the fixture spark, for example spark.driver.memory=4g",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Return the line that names the owner of the fixture `spark`.

    Of two plugins, pytest uses the fixture of the last one, and any conftest.py goes before both.
    """
    owners = [
        name
        for name, plugin in config.pluginmanager.list_name_plugin()
        if hasattr(plugin, "spark") and hasattr(plugin, "__file__")
    ]
    owners.sort(key=lambda name: name.endswith("conftest.py"))
    if owners[-1] != "dbx_aml":
        return f"dbx-aml: the fixture spark is the one of {owners[-1]}"
    kind = "Spark Connect" if config.getoption(_CONNECT) else "local"
    return f"dbx-aml: the fixture spark is the one of dbx_aml ({kind}, Delta, UTC)"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that cannot have the session: an earlier test has the error."""
    if "spark" in getattr(item, "fixturenames", ()):
        _skip_without_session(item.config)


def _skip_without_session(config: pytest.Config) -> None:
    reason = config.stash.get(_UNUSABLE, None)
    if reason is not None:
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Check that a test leaves the shared session running, and without new streams."""
    old_streams = _active_streams(item.config)
    try:
        return (yield)
    finally:
        _check_session(item, old_streams)


def _check_session(item: pytest.Item, old_streams: dict[str, Any]) -> None:
    session = item.config.stash.get(_SESSION, None)
    if session is None:
        return
    from dbx_aml.testing.spark_session import is_stopped

    if is_stopped(session):
        del item.config.stash[_SESSION]
        item.config.stash[_UNUSABLE] = f"{item.name} has stopped Spark"
        pytest.fail(
            "a test must not stop the session of all tests: got a stopped one; "
            "let the code under test take a session and leave it running",
            pytrace=False,
        )
    for query_id, query in _active_streams(item.config).items():
        if query_id not in old_streams:
            # The next tests would share their cores with it.
            query.stop()
            _warn(item, f"stop its streams: got {query.name or query_id!r}, which is stopped")


def _active_streams(config: pytest.Config) -> dict[str, Any]:
    session = config.stash.get(_SESSION, None)
    return {} if session is None else {query.id: query for query in session.streams.active}


def _warn(node: pytest.Item, message: str) -> None:
    node.warn(pytest.PytestWarning(f"a test must {message}"))


@pytest.fixture(scope="session")
def dbx_aml_local_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the test run for tables and logs; each worker of pytest-xdist has its own."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DBX_AML_LOCAL_ROOT", str(folder))
        yield folder


@pytest.fixture(scope="session")
def spark(request: pytest.FixtureRequest, dbx_aml_local_root: Path) -> Iterator[SparkSession]:
    """A Spark session with Delta: local, in UTC, with 2 cores; on Databricks the cluster's own.

    All tests of a process share the session. A table of one test is visible to the others, unless
    the test asks for `spark_database`.

    Example:
        def test_a_table_has_rows(spark):
            assert spark.range(3).count() == 3
    """
    from dbx_aml._common.errors import DbxAmlError
    from dbx_aml.testing.spark_session import start_spark

    config = request.config
    try:
        session, stop = start_spark(
            dbx_aml_local_root,
            connect=config.getoption(_CONNECT),
            kafka=config.getoption(_KAFKA),
            conf=config.getini(_CONF),
        )
    except DbxAmlError as err:
        config.stash[_UNUSABLE] = "Spark did not start; the error of the first test has the reason"
        pytest.fail(str(err), pytrace=False)
    config.stash[_SESSION] = session
    yield session
    config.stash[_SESSION] = None
    stop()


@pytest.fixture
def spark_database(spark: SparkSession) -> Iterator[str]:
    """The name of a new schema, which is the current schema until the end of the test.

    Example:
        def test_a_table_is_empty(spark, spark_database):
            spark.sql("CREATE TABLE flights (id BIGINT)")
            assert spark.table(f"{spark_database}.flights").count() == 0
    """
    from dbx_aml.testing.spark_session import new_database

    with new_database(spark) as name:
        yield name


@pytest.fixture
def mlflow_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URI of an empty SQLite store of this test, set as tracking and as registry URI.

    The active experiment is "tests". Its artifacts are in `tmp_path`, beside the store. After the
    test MLflow has its previous URIs.

    Example:
        def test_a_run_is_kept(mlflow_store):
            with mlflow.start_run() as run: ...
            assert mlflow.get_run(run.info.run_id)
    """
    from dbx_aml._common.errors import DbxAmlError
    from dbx_aml.testing.mlflow_store import end_active_runs, use_new_store

    try:
        uri, restore = use_new_store(tmp_path)
    except DbxAmlError as err:
        pytest.fail(str(err), pytrace=False)
    yield uri
    try:
        for run_id in end_active_runs():
            _warn(request.node, f"end its runs: got {run_id}, which was active and is ended")
    finally:
        restore()


@pytest.fixture
def registered_model(request: pytest.FixtureRequest, mlflow_store: str) -> Callable[..., str]:
    """A function that logs and registers a model and returns its URI.

    Call it as `registered_model(model, name="model", input_example=None)`. The model is a fitted
    one of a library that MLflow has a flavor for, a `PythonModel`, or a function from rows to
    predictions. With an example the model has a signature, which `score_table` needs.

    Example:
        def test_a_model_is_registered(registered_model):
            model_uri = registered_model(lambda rows: rows["x"] * 2, "double", pd.DataFrame(...))
            assert model_uri == "models:/double/1"
    """
    from dbx_aml.testing.models import register_test_model

    def register(model: Any, name: str = "model", input_example: Any = None) -> str:
        return register_test_model(model, name, input_example, test_module=request.module)

    return register


@pytest.fixture
def score(spark: SparkSession, spark_database: str) -> Callable[..., ScoredRows]:
    """A function that scores rows with `score_table` and returns output and quarantine as frames.

    Call it as `score(model_uri, rows, **arguments)`: the rows are a data frame of Spark or pandas.
    `score_table` takes the arguments. The tables are in `spark_database`.

    Example:
        def test_a_row_is_scored(score, registered_model):
            scored = score(registered_model(...), rows, max_quarantined_rows="100%")
            assert scored.output.count() == 4
            assert scored.quarantine.count() == 1
    """
    from dbx_aml.testing.scored_rows import score_rows

    def score_frame(model_uri: str, rows: Any, **arguments: Any) -> ScoredRows:
        return score_rows(spark, model_uri, rows, **arguments)

    return score_frame


@pytest.fixture
def run_notebook(
    request: pytest.FixtureRequest, tmp_path: Path, mlflow_store: str
) -> Iterator[Callable[..., NotebookOutcome]]:
    """A function that runs a notebook (source format) in a new process.

    Call it as `run_notebook(path, parameters=None, spark=None, check=True)`. The parameters are
    texts by widget name. The session is the one of the fixture `spark`, unless another is given.
    MLflow of the notebook uses `mlflow_store`, also where the notebook connects and a `config.json`
    or a variable names other servers. A failing cell is a `NotebookError`, with
    `check=False` an outcome with exit code 1.

    Example:
        def test_the_report_counts_late_flights(run_notebook):
            outcome = run_notebook("notebooks/report.py", parameters={"month": "10"})
            assert outcome.value == "3"
            assert outcome.namespace["late"].count() == 3
    """
    from dbx_aml._common.databricks_runtime import running_version
    from dbx_aml.testing.notebooks import NotebookRunner

    if running_version():
        pytest.fail(
            f"run_notebook must run outside of Databricks: got runtime {running_version()}; "
            "test the notebook on a laptop, or run it as a job",
            pytrace=False,
        )
    with NotebookRunner(tmp_path, mlflow_store) as runner:

        def run(
            path: str | Path,
            parameters: dict[str, str] | None = None,
            spark: SparkSession | None = None,
            check: bool = True,
        ) -> NotebookOutcome:
            if spark is None:
                _skip_without_session(request.config)
            session = spark or request.getfixturevalue("spark")
            return runner.run(path, parameters, spark=session, check=check)

        yield run
