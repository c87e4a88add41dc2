"""A user's program on a node: link, track, mirror, register, score and monitor.

    python flow.py <folder for tables> <file for the result>

With TEST_RUNTIME_STEPS=score it leaves out streams and monitoring.

The variables of the cluster name the link, as the init script has written them. The program writes
the result of each step as JSON. It is the same for MLflow 2 and 3.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import infer_signature
from pyspark.sql import functions as F
from sklearn.linear_model import LinearRegression

import dbx_aml
from dbx_aml._common.errors import ModelUriError
from dbx_aml.cli.main import main

EXPERIMENT_PATH = "/Users/ana@contoso.com/runtimes/größe"
# More rows a window than `monitor_table` needs for a distance.
ROWS = 400
root, result_file = Path(sys.argv[1]), Path(sys.argv[2])
result = {}


started = time.monotonic()


def step(name, **seen):
    """Write the result of a step, with the seconds since the start."""
    result[name] = {**seen, "seconds": round(time.monotonic() - started, 1)}
    result_file.write_text(json.dumps(result))


def mirror_runs():
    """Run `dbx-aml mirror`, which ends with an error if a run is not whole in Azure ML."""
    try:
        main(["mirror", "--experiment", EXPERIMENT_PATH, "--json"], standalone_mode=False)
    except SystemExit as end:
        assert not end.code, end.code


# 1 Link.
connection = dbx_aml.connect()
step("link", tracking_uri=connection.tracking_uri, registry_uri=connection.registry_uri)

# 2 Track: autologging, a model, a file. The model answers 10 x + y, from exact numbers.
rows = pd.DataFrame({"x": [0.0, 1.0, 2.0, 5.0], "y": [0.0, 3.0, 4.0, 1.0]})
mlflow.set_experiment(EXPERIMENT_PATH)
mlflow.sklearn.autolog(log_models=False)
with mlflow.start_run(run_name="runtime") as run:
    model = LinearRegression().fit(rows, rows.x * 10 + rows.y)
    mlflow.log_metric("größe", 12.5, step=3)
    mlflow.log_text("hello", "notes/a ü.txt")
    mlflow.sklearn.log_model(
        model,
        "model",
        signature=infer_signature(rows, model.predict(rows)),
        pip_requirements=["scikit-learn"],
    )
mlflow.sklearn.autolog(disable=True)
step("track", run_id=run.info.run_id)

# 3 Mirror: the live mirror has begun, the command brings the rest.
mirror_runs()
step("mirror")

# 4 Register.
model_version = dbx_aml.register_model(
    f"runs:/{run.info.run_id}/model", "delay", alias="champion", tags={"team": "größe"}
)
step("register", version=str(model_version.version), tags=model_version.tags)

# 5 Score: the row without x goes to the quarantine.
conf = {
    "spark.sql.shuffle.partitions": "1",
    # For short jobs the second compiler of the JVM costs more than it saves.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}
spark = dbx_aml.local_spark(root, master="local[2]", conf=conf)
step("Spark")
flights = spark.range(ROWS).select(
    "id", F.when(F.col("id") > 0, F.col("id") / 4).alias("x"), F.expr("double(id % 7)").alias("y")
)
flights.coalesce(1).write.saveAsTable("flights")
arguments = {
    "model_uri": "models:/delay@champion",
    "input_table": "flights",
    "output_table": "scored",
    "max_quarantined_rows": 1,
    "spark": spark,
}
scored = dbx_aml.score_table(**arguments)
again = dbx_aml.score_table(**arguments)
step(
    "score",
    statuses=[scored.status, again.status],
    predictions={row.id: row.prediction for row in spark.table("scored").collect()},
    quarantined=[
        [row.id, str(row._quarantine)] for row in spark.table("scored_quarantine").collect()
    ],
    batches=spark.table("scored_batches").count(),
)

if os.environ.get("TEST_RUNTIME_STEPS") != "score":
    # The same by a stream: rows that are new since the last call.
    stream = {**arguments, "output_table": "streamed", "write_mode": "incremental"}
    counts = []
    for _ in range(2):
        counts.append(
            dbx_aml.score_table(**stream, checkpoint_location=str(root / "progress")).rows_read
        )
    step("stream", rows=counts, rows_in_table=spark.table("streamed").count())

    # 6 Monitor. Not every runtime has plotly, which the page needs.
    page = root / "page.html" if find_spec("plotly") else None
    monitored = dbx_aml.monitor_table("scored", baseline="flights", page=page, spark=spark)
    columns = sorted({row["column_name"] for row in monitored.drift})
    step("monitor", rows=monitored.rows, columns=columns)
    if page:
        step("page", has_script="Plotly.newPlot" in page.read_text(encoding="utf-8"))

# Azure ML as the only service: plain MLflow logs a model and reads it back.
with dbx_aml.connect(mode="aml", experiment="only-azure-ml") as connection:
    with mlflow.start_run() as run:
        mlflow.log_params({"alpha": 0.5, "long": "x" * 600})
        mlflow.sklearn.log_model(
            model,
            "model",
            signature=infer_signature(rows, model.predict(rows)),
            pip_requirements=["scikit-learn"],
        )
    loaded = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    params = mlflow.get_run(run.info.run_id).data.params
    step(
        "track in Azure ML",
        run_id=run.info.run_id,
        predictions=list(loaded.predict(rows)),
        long=len(params["long"]),
    )

# Registering has tagged the logged model of MLflow 3, monitoring has logged a run.
mirror_runs()

# MLflow 2 has no logged models.
if not hasattr(mlflow, "get_logged_model"):
    try:
        dbx_aml.register_model("models:/m-5f0c12ab", "delay")
    except ModelUriError as err:
        step("logged model", error=str(err))

report = dbx_aml.run_doctor()
step("doctor", failed=[result.check for result in report.failed])
names = (
    "pyspark",
    "delta-spark",
    "mlflow-skinny",
    "azureml-mlflow",
    "pandas",
    "pyarrow",
    "numpy",
    "dbx-aml",
)
step("versions", python=sys.version.split()[0], **{name: version(name) for name in names})
