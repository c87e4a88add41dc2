"""Metrics: a lost point is found, and written points are counted without reading them all."""

from typing import Any

import pytest

from dbx_aml.tracking.mirror import metrics, tags
from dbx_aml.tracking.mirror.mirror_runs import mirror_runs
from dbx_aml.tracking.mirror.server import MlflowServer
from dbx_aml.tracking.mirror.source_runs import get_runs
from tests.support.mirror import MirrorStores


@pytest.mark.parametrize("lost_index", [1, 4], ids=["in between", "the last one"])
@pytest.mark.parametrize("has_offset_tokens", [True, False])
def test_a_point_that_the_destination_loses_is_found(
    stores: MirrorStores,
    monkeypatch: pytest.MonkeyPatch,
    lost_index: int,
    has_offset_tokens: bool,
) -> None:
    run_id = stores.create_run("lossy")
    write_points = metrics.write_points

    def lose_point(server: MlflowServer, mirrored_id: str, metric_points: Any) -> None:
        write_points(
            server, mirrored_id, [*metric_points[:lost_index], *metric_points[lost_index + 1 :]]
        )

    monkeypatch.setattr(metrics, "write_points", lose_point)
    monkeypatch.setattr(metrics, "_READ_DELAYS_S", ())
    if not has_offset_tokens:
        monkeypatch.setattr(metrics, "_offset_token", lambda offset: f"not an offset: {offset}")

    result = stores.mirror()["lossy"]

    assert result.status == "failed"
    assert "metric 'loss'" in result.reason
    assert "5 points: got 4" in result.reason
    assert stores.source_tags(run_id)[tags.STATUS] == tags.FAILED
    monkeypatch.setattr(metrics, "write_points", write_points)
    source, destination = stores.servers()
    (result,) = mirror_runs(source, destination, get_runs(source, [run_id]))
    assert result.status == "done"
    stores.assert_equal()


def test_written_points_are_counted_by_the_last_page_alone(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        stores.create_run(f"run {number}")
    page_sizes: list[int] = []
    point_pages = metrics.point_pages

    def count_pages(server: MlflowServer, *arguments: Any, **options: Any) -> Any:
        for page, token in point_pages(server, *arguments, **options):
            if server.name == "aml":
                page_sizes.append(len(page))
            yield page, token

    monkeypatch.setattr(metrics, "point_pages", count_pages)
    assert {result.status for result in stores.mirror().values()} == {"done"}
    assert sum(page_sizes) <= 6, page_sizes
    stores.assert_equal()
