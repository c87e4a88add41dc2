"""The packages of a model: when scoring uses them, and that the rows are the same as here."""

import json
import os
import platform
import re
import signal
from itertools import pairwise
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import six
from mlflow.models import Model, infer_signature
from mlflow.types import Schema
from mlflow.types.schema import Array, ColSpec, DataType, Map, Object, Property

from dbx_aml import replay_batch, score_table
from dbx_aml._common import uv
from dbx_aml._common.errors import (
    ArgumentError,
    ProgramError,
    ScoringError,
    UnsolvableRequirementsError,
)
from dbx_aml._common.programs import run_program
from dbx_aml.local import built_environment, pinned_environment
from dbx_aml.local.built_environment import build_environment, minor_version
from dbx_aml.scoring.own_environment import deciding_differences, pin_environment
from tests.support.models import XY, save_model

HERE = minor_version(platform.python_version())
MLFLOW = "mlflow-skinny==3.15.0"


@pytest.fixture
def calls(tmp_path, monkeypatch) -> list[tuple[dict[str, str], list[str]]]:
    """The options of each call of uv and the requirements; a call runs nothing."""
    calls: list[tuple[dict[str, str], list[str]]] = []

    def run(arguments, timeout_s, *, input_text=""):
        lines = Path(arguments[-1]).read_text().splitlines()
        calls.append((dict(pairwise(arguments)), lines))
        return "numpy==2.3.3\nsix==1.17.0\n"

    monkeypatch.setattr(uv, "run_uv", run)
    monkeypatch.setattr(pinned_environment, "environments_folder", lambda: tmp_path / "cache")
    return calls


def write_model(folder: Path, requirements: str, flavor="sklearn", python=f"{HERE}.1") -> Path:
    folder.mkdir()
    loader = "mlflow.pyfunc.model" if flavor == "python_function" else f"mlflow.{flavor}"
    (folder / "MLmodel").write_text(
        f"mlflow_version: 3.15.0\nflavors:\n  {flavor}:\n    loader_module: {loader}\n"
        f"  python_function:\n    loader_module: {loader}\n    python_version: 3.13.1\n"
        if flavor != "python_function"
        else f"mlflow_version: 3.15.0\nflavors:\n  python_function:\n    loader_module: {loader}\n"
    )
    (folder / "requirements.txt").write_text(requirements)
    (folder / "python_env.yaml").write_text(f"python: {python}\n")
    return folder


def pin(folder: Path, choice="model"):
    return pin_environment(choice, Model.load(str(folder)), folder)


def differences(folder: Path) -> list[str]:
    return deciding_differences(Model.load(str(folder)), folder)


def test_the_packages_are_the_models_without_mlflows_server_and_what_the_process_needs(
    tmp_path, calls
) -> None:
    model = write_model(tmp_path / "model", "-c constraints.txt\nmlflow==3.1.4\nnumpy<3")
    (model / "constraints.txt").write_text("six<2\n")
    environment = pin(model)
    ((options, lines),) = calls
    assert lines == [
        "-c constraints.txt", "mlflow-skinny==3.1.4", "numpy<3", "pandas<3", "pyarrow",
    ]  # fmt: skip
    assert options["--python-version"] == HERE
    assert options["--only-binary"] == ":all:"
    assert environment.versions == {"python": HERE, "numpy": "2.3.3", "six": "1.17.0"}
    # A second call does not run uv.
    assert pin(model) == environment
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("requirements", "flavor", "lines"),
    [
        ("mlflow==3.1.4\n", "python_function", ["mlflow==3.1.4", "pandas<3", "pyarrow"]),
        ("mlflow[genai]\nPandas==2.1\n", "sklearn", ["mlflow[genai]", "Pandas==2.1", "pyarrow"]),
        ("six\npyarrow\npandas", "xgboost", ["six", "pyarrow", "pandas", MLFLOW]),
    ],
)
def test_requirements_that_code_of_the_author_may_need_stay_as_they_are(
    tmp_path, calls, requirements, flavor, lines
) -> None:
    pin(write_model(tmp_path / "model", requirements, flavor))
    assert calls[0][1] == lines


def test_auto_takes_the_models_environment_only_for_what_its_flavor_depends_on(
    tmp_path, calls
) -> None:
    here = f"pandas=={pd.__version__}"
    same = write_model(tmp_path / "same", f"mlflow==2.0\nnosuchpackage==3\n{here}")
    assert pin(same, "auto") is None
    assert pin(same, "local") is None
    assert calls == []
    library = write_model(tmp_path / "library", "scikit-learn==1.0\nnumpy==1.0\nnosuchpackage==3")
    assert [text.partition(": ")[0] for text in differences(library)] == [
        "scikit-learn==1.0", "numpy==1.0",
    ]  # fmt: skip
    code = write_model(tmp_path / "code", "mlflow==2.0\nnosuchpackage==3", "python_function")
    assert differences(code) == ["nosuchpackage==3: not installed here"]
    assert pin(code, "auto").versions["six"] == "1.17.0"
    old = write_model(tmp_path / "old", here, python="3.10.4")
    assert differences(old) == ([] if HERE == "3.10" else [f"Python 3.10: {HERE} here"])
    # LightGBM's own file is no pickle.
    assert differences(write_model(tmp_path / "booster", here, "lightgbm", "3.10.4")) == []


@pytest.mark.parametrize(
    ("requirements", "python", "message"),
    [
        ("\n", "3.12.1", r"must have requirements .*: got no requirements\.txt"),
        ("six\n", "3.9.18", r"must be 3\.10 or newer .*: got 3\.9; log the model again"),
    ],
)
def test_a_model_that_cannot_have_an_environment_is_refused(
    tmp_path, calls, requirements, python, message
) -> None:
    with pytest.raises(ScoringError, match=message):
        pin(write_model(tmp_path / "model", requirements, python=python))
    assert calls == []


def test_requirements_without_a_solution_or_a_wheel_are_refused_with_uvs_reason(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(pinned_environment, "environments_folder", lambda: tmp_path / "cache")
    with pytest.raises(UnsolvableRequirementsError, match=r"numpy<2.*numpy>=2.*unsatisfiable"):
        pin(write_model(tmp_path / "model", f"{MLFLOW}\nnumpy<2\nnumpy>=2\n"))
    # A release that its authors only published as source.
    with pytest.raises(UnsolvableRequirementsError, match=r"have wheels, .*docopt==0\.6\.2.*no "):
        pin(write_model(tmp_path / "source", f"{MLFLOW}\ndocopt==0.6.2\n"))
    monkeypatch.setattr(uv, "_uv_command", lambda: [str(tmp_path / "absent")])
    with pytest.raises(ProgramError, match="program must start"):
        pin(write_model(tmp_path / "other", "six\n"))


def test_an_unknown_environment_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"environment must be one of local, model, auto: got"):
        score_table(model_uri="m", input_table="t", output_table="o", environment="uv")


# With Spark


@pytest.fixture
def environments(tmp_path_factory, monkeypatch) -> Path:
    """The folder of the environments of this run, which the tests share."""
    folder = tmp_path_factory.getbasetemp() / "environments"
    for module in (built_environment, pinned_environment):
        monkeypatch.setattr(module, "environments_folder", lambda: folder)
    return folder


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.connect
@pytest.mark.timeout(600)
def test_the_models_packages_give_the_same_rows_and_the_second_run_makes_no_environment(
    spark, tmp_path, environments, score, delta_table
) -> None:
    example = pd.DataFrame(
        {
            "x": [1.0, 2.0],
            "n": [1, 2],
            "at": [pd.Timestamp("2013-01-01")] * 2,
            "s": ["a", "b"],
            "b": [True, False],
            "l": [np.array([0.5])] * 2,
        }
    )

    def describe(rows):
        import os

        import six

        if (rows["x"] == 7).any():
            os._exit(7)
        if (rows["x"] < 0).any():
            raise ValueError("x is negative")
        return [
            f"{six.__version__}|{row.x}|{row.n}|{row.at}|{row.s}|{row.b}|{list(map(float, row.l))}"
            for row in rows.itertuples()
        ]

    model = save_model(tmp_path, describe, example)
    (Path(model) / "requirements.txt").write_text(
        f"{MLFLOW}\ncloudpickle\nnumpy=={np.__version__}\nsix==1.16.0"
    )
    values = [
        (0.1 + 0.2, 2**53 + 1, "2013-10-27 02:30:00", "größe", True, [0.25, -0.0]),
        (float("inf"), -(2**62) - 1, None, None, None, []),
        (-1.0, 0, None, "bad", True, [1.0]),
    ]
    schema = "x double, n bigint, at string, s string, b boolean, l array<double>"
    frame = spark.createDataFrame(values, schema).coalesce(1)
    table = delta_table(frame.withColumn("at", frame["at"].cast("timestamp_ntz")))
    result = score(model, table, environment="model", max_quarantined_rows=1)
    predictions = [
        row.prediction for row in spark.sql(f"SELECT * FROM {result.output_table}").collect()
    ]
    assert sorted(predictions) == [
        "1.16.0|0.30000000000000004|9007199254740993|2013-10-27 02:30:00|größe|True|[0.25, -0.0]",
        "1.16.0|inf|-4611686018427387905|NaT|None|None|[]",
    ]
    reasons = spark.sql(f"SELECT _quarantine.reason FROM {result.quarantine_table}").collect()
    assert [row.reason for row in reasons] == ["ValueError: x is negative"]
    (plan,) = spark.sql(f"SELECT plan FROM delta.`{tmp_path}/output_batches`").first()
    assert json.loads(plan)["model_environment"] == "model"
    versions = json.loads(plan)["environment"]
    assert (versions["six"], versions["python"]) == ("1.16.0", HERE)
    assert "mlflow" not in versions
    made = {file: file.stat().st_ctime_ns for file in environments.glob("*/pyvenv.cfg")}
    again = score(model, table, environment="model", max_quarantined_rows=1)
    assert again.status == "already_scored"
    assert {file: file.stat().st_ctime_ns for file in environments.glob("*/pyvenv.cfg")} == made

    ending = delta_table(spark.read.table(table).where("b").selectExpr("7D AS x", "* EXCEPT (x)"))
    with pytest.raises(ScoringError, match=r"^model must answer .* its Python ended with status 7"):
        score(model, ending, environment="model", output_table=f"delta.`{tmp_path}/ending`")


@pytest.fixture
def described_rows(spark, tmp_path, delta_table) -> tuple[str, dict[str, str]]:
    """A table with nested columns, and two models that describe them, by their version of six."""

    def describe(rows):
        import six

        if six.__version__ == "1.16.0" and (rows["x"] == 3).any():
            raise ValueError("x is 3")
        return [f"{six.__version__}|{row}" for row in rows.to_dict("records")]

    pair = Object([Property("n", DataType.long), Property("l", Array(DataType.double))])
    inputs = Schema(
        [
            ColSpec(DataType.double, "x"),
            ColSpec(Map(DataType.double), "m"),
            ColSpec(pair, "s"),
            ColSpec(Array(Array(DataType.long)), "ll"),
            ColSpec(Array(pair), "ls"),
            ColSpec(Map(Array(DataType.string)), "ml"),
        ]
    )
    models = {}
    for version in ("1.16.0", "1.17.0"):
        models[version] = save_model(tmp_path, describe, XY, inputs=inputs)
        (Path(models[version]) / "requirements.txt").write_text(
            f"mlflow-skinny=={mlflow.__version__}\ncloudpickle\nnumpy=={np.__version__}\n"
            f"pandas=={pd.__version__}\npyarrow=={pa.__version__}\nsix=={version}"
        )
    frame = spark.sql(
        "SELECT CAST(id AS double) AS x, map('a', 0.1D, 'b', -0D) AS m, "
        "named_struct('l', array(0.1D, 2D), 'n', 2 * id) AS s, array(array(id, 1L), array(2L, 3L)) "
        "AS ll, array(s, s) AS ls, map('k', array('größe', '')) AS ml, "
        "IF(id % 2 = 0, '1.16.0', '1.17.0') AS six FROM range(4)"
    )
    return delta_table(frame.coalesce(1)), models


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("environment", ["auto", "model"])
def test_a_challenger_has_its_own_packages_and_nested_values_arrive_as_in_the_packages_here(
    spark, tmp_path, environments, score, described_rows, environment
) -> None:
    table, models = described_rows
    local = score(models["1.17.0"], table)
    expected = spark.sql(f"SELECT x, prediction FROM {local.output_table} ORDER BY x").collect()
    output = f"delta.`{tmp_path}/both`"
    result = score(
        models["1.17.0"], table, challenger_uri=models["1.16.0"], environment=environment,
        output_table=output,
    )  # fmt: skip
    assert (result.rows_scored, result.rows_quarantined) == (4, 0)
    query = f"SELECT x, prediction, _challenger.* FROM {output} ORDER BY x"
    for row, here in zip(spark.sql(query).collect(), expected, strict=True):
        assert row[1].partition("|")[0] == (six.__version__ if environment == "auto" else "1.17.0")
        assert row[1].partition("|")[2] == here[1].partition("|")[2]
        if here.x == 3:
            assert (row[3], row[4]) == (None, "ValueError: x is 3")
        else:
            assert (row[3].partition("|")[0], row[4]) == ("1.16.0", None)
            assert row[3].partition("|")[2] == here[1].partition("|")[2]
    (plan,) = spark.sql(f"SELECT plan FROM delta.`{tmp_path}/both_batches`").first()
    assert json.loads(plan)["model_environment"] == {"auto": "local"}.get(environment, environment)


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_segment_has_the_packages_of_its_model_also_when_the_batch_is_replayed(
    spark, environments, score, described_rows
) -> None:
    table, models = described_rows
    result = score(
        None, table, segment_column="six", segment_models=models, environment="auto",
        row_filter="x < 3",
    )  # fmt: skip
    rows = spark.sql(f"SELECT six, prediction FROM {result.output_table}").collect()
    assert len(rows) == 3
    assert all(row.prediction.startswith(f"{row.six}|{{'x': ") for row in rows)
    replayed = replay_batch(output_table=result.output_table, batch=result.batch, spark=spark)
    assert (replayed.rows_equal, replayed.is_equal) == (3, True)


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_of_another_python_and_library_predicts_as_in_the_process_that_logged_it(
    spark, tmp_path, environments, score, delta_table, monkeypatch
) -> None:
    other = next((p for p in ("3.10", "3.12") if p != HERE and _folder_of_python(p)), None)
    if other is None:
        pytest.skip("no Python 3.10 or 3.12 under ~/.pyenv: python of the model must be installed")
    monkeypatch.setenv("PATH", f"{_folder_of_python(other)}/bin{os.pathsep}{os.environ['PATH']}")
    requirements = [MLFLOW, "scikit-learn==1.3.2", "pandas<3", "pyarrow"]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "requirements.txt").write_text("\n".join(requirements))
    (tmp_path / "model" / "python_env.yaml").write_text(f"python: {other}.0\n")
    (tmp_path / "model" / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n"
    )
    built = build_environment(pin(tmp_path / "model"))
    code = f"""
import mlflow.sklearn, numpy as np, pandas as pd, sklearn
from sklearn.ensemble import RandomForestRegressor
x = pd.DataFrame(np.random.default_rng(0).random((500, 3)), columns=["a", "b", "c"])
model = RandomForestRegressor(20, random_state=0).fit(x, x.a * x.b)
y = model.predict(x)
mlflow.sklearn.save_model(
    model, "{tmp_path}/logged", signature=mlflow.models.infer_signature(x, y),
    pip_requirements={requirements!r}, serialization_format="cloudpickle",
)
x.assign(expected=y).to_parquet("{tmp_path}/expected.parquet")
print(sklearn.__version__)
"""
    assert run_program([str(built.interpreter), "-c", code], 300).split()[-1] == "1.3.2"
    frame = spark.createDataFrame(pd.read_parquet(tmp_path / "expected.parquet"))
    table = delta_table(frame.coalesce(1))
    steps = []
    result = score(
        f"{tmp_path}/logged",
        table,
        environment="auto",
        progress=lambda step, *_: steps.append(step),
    )
    scored = spark.sql(f"SELECT * FROM {result.output_table}").toPandas()
    assert len(scored) == 500
    assert (scored["prediction"] == scored["expected"]).all()
    (chosen,) = [step for step in steps if step.startswith("plan: environment of ")]
    assert f"Python {other}: {HERE} here; scikit-learn==1.3.2: " in chosen


def _folder_of_python(python: str) -> Path | None:
    versions = Path.home() / ".pyenv" / "versions"
    return next(iter(sorted(versions.glob(f"{python}.*"), reverse=True)), None)


@pytest.mark.spark
@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["linear", "lightgbm", "forest"])
def test_predictions_are_those_of_the_same_packages_here_to_the_bit(
    spark, tmp_path, environments, delta_table, kind
) -> None:
    import lightgbm
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import LinearRegression

    generator = np.random.default_rng(0)
    x = pd.DataFrame(generator.random((20_000, 10)), columns=[f"x{i}" for i in range(10)])
    y = x.to_numpy() @ np.arange(10.0) + generator.random(len(x))
    path = str(tmp_path / "model")
    if kind == "lightgbm":
        booster = lightgbm.LGBMRegressor(n_estimators=50, verbose=-1).fit(x, y)
        mlflow.lightgbm.save_model(booster, path, signature=infer_signature(x, y))
    else:
        fitted = {"linear": LinearRegression(), "forest": RandomForestRegressor(20, n_jobs=-1)}
        model = fitted[kind].fit(x, y)
        mlflow.sklearn.save_model(
            model, path, signature=infer_signature(x, y), serialization_format="cloudpickle"
        )
    table = delta_table(spark.createDataFrame(x).repartition(4))
    results = []
    for environment in ("local", "model"):
        output = f"delta.`{tmp_path}/{environment}`"
        score_table(
            model_uri=path, input_table=table, output_table=output, environment=environment,
            spark=spark,
        )  # fmt: skip
        frame = spark.sql(f"SELECT * FROM {output}").toPandas()
        results.append(frame.sort_values(list(x.columns))["prediction"].to_numpy())
    assert len(results[0]) == len(x)
    assert (results[0].view(np.int64) == results[1].view(np.int64)).all()

    planned = score_table(
        model_uri=path, input_table=table, output_table=f"delta.`{tmp_path}/planned`",
        environment="model", dry_run=True, spark=spark,
    )  # fmt: skip
    assert planned.plan["microseconds_per_row"] > 0
    # The driver's own process has ended.
    children = [" ".join(child.cmdline()) for child in psutil.Process().children()]
    assert not [command for command in children if "guard_process" in command]


@pytest.mark.spark
@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_all_batches_of_a_stream_have_the_process_of_their_worker(
    spark, tmp_path, environments, score, delta_table
) -> None:
    def versions(rows):
        import six

        return [f"{six.__version__}|{x}" for x in rows["x"]]

    model = save_model(tmp_path, versions, XY)
    (Path(model) / "requirements.txt").write_text(f"{MLFLOW}\ncloudpickle\nsix==1.16.0")
    rows = spark.createDataFrame([(0.0, 0.0)], "x double, y double")
    table = delta_table(rows.coalesce(1))
    processes, steps = set(), []

    def add_a_row_or_stop(step, done, total):
        if not re.match(r"batch \d+: ", step):
            return
        steps.append(step)
        processes.update(
            child.pid
            for child in psutil.Process().children(recursive=True)
            if any("guard_process" in text for text in child.cmdline())
        )
        if len(steps) < 4:
            spark.sql(f"INSERT INTO {table} VALUES ({len(steps)}, 0)").collect()
        elif len(steps) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    result = score(
        model, table, environment="model", write_mode="incremental", trigger="1 second",
        progress=add_a_row_or_stop,
    )  # fmt: skip
    assert result.status == "stopped"
    output = spark.sql(f"SELECT prediction FROM {result.output_table}").collect()
    # Of a stopped stream the last row may be left for the next run.
    assert {f"1.16.0|{x}" for x in (0.0, 1.0, 2.0)} <= {row.prediction for row in output}
    # Spark has two workers here.
    assert 0 < len(processes) <= 2
    replayed = replay_batch(output_table=result.output_table, batch=result.batch, spark=spark)
    assert replayed.is_equal
    assert replayed.rows_equal > 0
