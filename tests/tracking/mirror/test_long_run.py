"""A long run of changes, outages and kills ends with the same content on both sides."""

from random import Random
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from dbx_aml._common.errors import MirrorError
from dbx_aml.tracking.mirror import lease, metrics, mirror_run, tags
from tests.support.mirror import MirrorStores

_ROUNDS = 8
_CHANGES_A_ROUND = 4


class SourceProgram:
    """Programs and people that change the source at random.

    Args:
        stores: Stores to work on.
        random: Source of the choices.
    """

    def __init__(self, stores: MirrorStores, random: Random) -> None:
        self._stores = stores
        self._random = random
        self._run_ids: list[str] = []
        self._points = 0

    def change(self) -> None:
        """Create a run, or change one that may be mirrored already."""
        changes = [self._set_tag, self._delete_tag, self._log_points, self._resume, self._rename]
        changes += [self._overwrite_file, self._delete_and_restore]
        if not self._run_ids or self._random.random() < 0.3:
            self._run_ids.append(self._stores.create_run(f"run {len(self._run_ids)}", mine="0"))
        else:
            self._random.choice(changes)(self._random.choice(self._run_ids))

    def _set_tag(self, run_id: str) -> None:
        self._stores.source.set_tag(run_id, self._random.choice("abc"), str(self._random.random()))

    def _delete_tag(self, run_id: str) -> None:
        names = sorted(set(self._stores.source_tags(run_id)) & {"a", "b", "c", "mine"})
        for name in names[:1]:
            self._stores.source.delete_tag(run_id, name)

    def _log_points(self, run_id: str) -> None:
        for key in ("loss", "late"):
            self._points += 1
            point = Metric(key, self._random.random(), 5000 + self._points, 100 + self._points)
            self._stores.source.log_batch(run_id, [point])

    def _resume(self, run_id: str) -> None:
        self._stores.source.update_run(run_id, status="RUNNING")
        self._log_points(run_id)
        self._overwrite_file(run_id)
        self._stores.source.set_terminated(run_id)

    def _rename(self, run_id: str) -> None:
        name = f"{self._run_ids.index(run_id)} {self._random.random()}"
        self._stores.source.update_run(run_id, name=name)

    def _overwrite_file(self, run_id: str) -> None:
        self._stores.source.log_text(run_id, str(self._random.randrange(9)), "notes/late.txt")

    def _delete_and_restore(self, run_id: str) -> None:
        self._stores.source.delete_run(run_id)
        self._stores.mirror()
        self._stores.source.restore_run(run_id)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_outages_kills_and_changes_after_done_end_with_equal_sides(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random = Random(seed)
    program = SourceProgram(stores, random)
    killed = outages = 0
    for _ in range(_ROUNDS):
        for _ in range(_CHANGES_A_ROUND):
            program.change()
        fault = random.choice(["none", "outage", "kill"])
        with monkeypatch.context() as patch:
            if fault != "none":
                _break_at_call(patch, random.randrange(8), fault)
            try:
                results = stores.mirror()
            except KeyboardInterrupt:
                killed += 1
            except MirrorError:
                outages += 1
            else:
                outages += any(result.error for result in results.values())
        _release_leases(stores)
    assert killed
    assert outages

    assert all(result.error is None for result in stores.mirror(is_full=True).values())

    stores.assert_equal()
    assert stores.mirror() == {}


def _break_at_call(patch: pytest.MonkeyPatch, number: int, fault: str) -> None:
    """Let each writing call from the one with a number on fail, or the process end there."""
    calls = 0

    def broken(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > number:
                if fault == "kill":
                    raise KeyboardInterrupt
                raise MlflowException("no answer", TEMPORARILY_UNAVAILABLE)
            return function(*args, **kwargs)

        return call

    for module, name in (
        (metrics, "write_points"),
        (mirror_run, "write_data"),
        (mirror_run, "copy_files"),
    ):
        patch.setattr(module, name, broken(getattr(module, name)))


def _release_leases(stores: MirrorStores) -> None:
    """End the leases as the end of a killed process does: this process goes on."""
    for run in stores.source.search_runs([stores.experiment_id]):
        if run.data.tags.get(tags.LEASE, lease.RELEASED) != lease.RELEASED:
            stores.source.set_tag(run.info.run_id, tags.LEASE, lease.RELEASED)
