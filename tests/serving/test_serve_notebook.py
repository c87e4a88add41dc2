"""The notebook `05_serve` with an endpoint: the model that it tried is the one that is deployed."""

import json
from pathlib import Path

import mlflow.pyfunc
import pytest

from dbx_aml import Endpoint, Link
from dbx_aml.local.built_environment import build_environment
from dbx_aml.local.notebook.run import run_notebook
from dbx_aml.serving.environment import resolve_environment
from tests.serving.conftest import EXAMPLE, RegisterFunction, times, without_proxies

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "05_serve.py"


@pytest.mark.azureml
@pytest.mark.slow
def test_the_notebook_tries_the_model_and_deploys_it_to_the_endpoint_of_its_widget(
    register: RegisterFunction,
    resolved_requirements: list[str],
    link: Link,
    config_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DBX_AML_CONFIG", str(config_folder))
    register(10)
    register(100)
    mlflow.pyfunc.save_model(
        tmp_path / "model", python_model=times(10), pip_requirements=resolved_requirements
    )
    with without_proxies():
        build_environment(resolve_environment(tmp_path / "model"))
    page = tmp_path / "page.html"
    for version, traffic, expected in (("1", "", {"blue": 100}), ("2", "10", {"blue": 90})):
        widgets = {
            "model_uri": f"models:/delay/{version}",
            "endpoint": "delay-ep",
            "traffic": traffic,
        }
        done = run_notebook(NOTEBOOK, widgets, spark=None, html=page)
        result = json.loads(done.exit_value or "{}")
        assert (result["model_uri"], result["difference"]) == (widgets["model_uri"], "")
        assert expected.items() <= result["traffic"]["delay-ep"].items()
    endpoint = Endpoint.load("delay-ep", link=link)
    assert endpoint.traffic == {"blue": 90, "green": 10}
    assert endpoint.score(EXAMPLE, deployment="green") == [103.0, 204.0]
    assert "the answers are equal to pyfunc.predict" in page.read_text()
