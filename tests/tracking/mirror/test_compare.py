"""Comparing two runs names each difference."""

from dbx_aml.tracking.mirror.compare import compare_runs
from tests.support.mirror import MirrorStores


def test_each_difference_is_named_with_both_values(stores: MirrorStores) -> None:
    run_id = stores.create_run("different")
    stores.mirror()
    (mirrored_id,) = stores.mirrored_ids(run_id)
    source, destination = stores.servers()
    assert list(compare_runs(source, destination, [source.get_run(run_id)])) == []
    stores.destination.log_metric(mirrored_id, "loss", 99.0, 1, 1)
    stores.source.log_metric(run_id, "loss", 0.25, 7, 77)
    stores.source.log_metric(run_id, "accuracy", 1.0, 1, 1)
    stores.source.log_text(run_id, "HELLO", "notes/a.txt")
    stores.source.set_tag(run_id, "team", "c")
    stores.source.log_param(run_id, "beta", "1")

    differences = {
        (difference.kind, difference.name): (difference.source, difference.destination)
        for difference in compare_runs(source, destination, [source.get_run(run_id)])
    }

    assert set(differences) == {
        ("metric", "loss"),
        ("metric", "accuracy"),
        ("artifact", "notes/a.txt"),
        ("tag", "team"),
        ("param", "beta"),
    }
    assert differences["metric", "loss"] == ("6 points, with 0.25 at step 77", "6, 1 missing")
    assert differences["tag", "team"] == ("c", "a b")
    assert differences["param", "beta"] == ("1", "")


def test_a_run_without_a_mirrored_run_is_one_difference(stores: MirrorStores) -> None:
    run_id = stores.create_run("pending")
    source, destination = stores.servers()
    (difference,) = compare_runs(source, destination, [source.get_run(run_id)])
    assert (difference.kind, difference.name) == ("run", run_id)
