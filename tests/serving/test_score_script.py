"""The scoring script in the environment of a model, without the scoring server around it."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dbx_aml.local.built_environment import build_environment
from dbx_aml.serving.environment import SCORE_SCRIPT, resolve_environment
from tests.support.child_process import clean_environment
from tests.support.served_models import FLIGHTS, save_served_model

CALL = """
import importlib.util, json, sys, time
spec = importlib.util.spec_from_file_location("entry_module", sys.argv[1])
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)
script.init()
print(json.dumps(script.run(json.loads(sys.argv[2]))))
time.sleep(float(sys.argv[3]))
"""
INPUT = {"columns": ["distance", "hour"], "index": [0], "data": [[200.0, 7]]}


@pytest.fixture
def collected() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The port of a stand-in for Azure ML's collector beside the container, and what it got."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, bodies
    server.shutdown()
    server.server_close()


def call(model: str, wait_s: float = 0.0, **variables: str) -> Any:
    """Return the script's answer to `INPUT`; the process then waits for the collection."""
    built = build_environment(resolve_environment(Path(model)))
    done = subprocess.run(
        [built.interpreter, "-c", CALL, SCORE_SCRIPT, json.dumps(INPUT), str(wait_s)],
        env={**clean_environment(), "AZUREML_MODEL_DIR": str(Path(model).parent), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_deployment_that_asks_for_it_gets_its_inputs_and_outputs_collected(
    tmp_path, collected
) -> None:
    port, bodies = collected
    model = save_served_model(tmp_path / "model", lambda rows: rows["distance"] / 2, FLIGHTS)
    config = tmp_path / "mdc.json"
    names = ("model_inputs", "model_outputs")
    config.write_text(json.dumps({"collections": {name: {"enabled": True} for name in names}}))
    answer = call(
        model,
        2.0,
        ENABLE_MDC="true",
        AZUREML_MDC_CONFIG_PATH=str(config),
        AZUREML_MDC_PORT=str(port),
        NO_PROXY="*",
    )
    assert answer == [{"distance": 100.0}]
    texts = [json.dumps(body) for body in bodies]
    assert len(texts) == 2
    assert any("200.0" in text and "hour" in text for text in texts)
    assert any("100.0" in text for text in texts)


@pytest.mark.slow
def test_without_collection_the_packages_of_azure_ml_are_not_imported(tmp_path) -> None:
    def predict(rows):
        import sys

        return ["azureml.ai.monitoring" in sys.modules]

    model = save_served_model(tmp_path / "model", predict)
    assert call(model, ENABLE_MDC="false") == [False]


@pytest.mark.slow
def test_predictions_that_are_no_table_are_answered_and_not_collected(tmp_path) -> None:
    model = save_served_model(tmp_path / "model", lambda rows: {"sum": 3})
    assert call(model, ENABLE_MDC="true") == {"sum": 3}
