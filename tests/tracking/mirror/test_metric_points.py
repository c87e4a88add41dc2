"""Points of a metric: equal values of two servers are equal points, in any order."""

import sys

from dbx_aml.tracking.mirror.metric_points import MetricPoints, pack_point


def test_points_of_every_server_are_equal() -> None:
    largest = sys.float_info.max
    assert pack_point((float("nan"), 1, 1)) == pack_point((-float("nan"), 1, 1))
    assert pack_point((float("inf"), 1, 1)) == pack_point((largest, 1, 1))
    assert pack_point((-float("inf"), 1, 1)) == pack_point((-largest, 1, 1))
    assert pack_point((-0.0, 1, 1)) == pack_point((0.0, 1, 1))
    assert pack_point((1.0, 1, 1)) != pack_point((1.0, 1, 2))


def test_the_digest_depends_on_the_set_of_points_alone() -> None:
    ascending, descending = MetricPoints(), MetricPoints()
    for step in range(10):
        assert ascending.add((0.1, step, step))
        descending.add((0.1, 9 - step, 9 - step))
    assert not ascending.add((0.1, 3, 3))
    assert ascending.digest == descending.digest
    descending.add((0.1, 10, 10))
    assert ascending.digest != descending.digest
