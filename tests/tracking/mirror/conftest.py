"""Fixtures of the mirror's tests."""

from pathlib import Path

import mlflow
import pytest

from tests.support.isolation import isolate_from_machine
from tests.support.mirror import EXPERIMENT_PATH, MirrorStores


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MirrorStores:
    """Two SQLite stores; MLflow tracks to the source in this process."""
    isolate_from_machine(monkeypatch, tmp_path)
    stores = MirrorStores(tmp_path)
    mlflow.set_tracking_uri(stores.source_uri)
    mlflow.set_registry_uri(stores.source_uri)
    mlflow.set_experiment(EXPERIMENT_PATH)
    return stores
