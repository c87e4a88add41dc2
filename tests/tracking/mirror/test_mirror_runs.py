"""Many runs at once: two processes create no second run, and the progress only grows."""

from concurrent.futures import ThreadPoolExecutor

from dbx_aml.tracking.mirror.mirror_runs import Progress
from tests.support.mirror import MirrorStores


def test_two_mirrors_at_once_create_no_second_run(stores: MirrorStores) -> None:
    for number in range(8):
        stores.create_run(f"run {number}")

    with ThreadPoolExecutor(2) as pool:
        results = [
            result
            for mirrored in pool.map(lambda _: stores.mirror(lock_timeout_s=20), range(2))
            for result in mirrored.values()
        ]

    assert {result.status for result in results} <= {"done", "up_to_date"}, results
    assert all(result.error is None for result in results)
    stores.assert_equal()


def test_the_progress_counts_runs_points_and_bytes(stores: MirrorStores) -> None:
    for number in range(3):
        stores.create_run(f"run {number}")
    reports: list[tuple[int, ...]] = []

    def report(progress: Progress) -> None:
        reports.append(
            (
                progress.runs,
                progress.finished_runs,
                progress.metric_points,
                progress.artifact_bytes,
            )
        )

    stores.mirror(report=report)

    assert reports[-1] == (3, 3, 15, 15)
    assert reports == sorted(reports)
