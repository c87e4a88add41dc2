import pytest

from dbx_aml._common.errors import ArgumentError
from dbx_aml.scoring import plan


@pytest.mark.parametrize(
    ("limit", "quarantined", "read", "is_exceeded"),
    [
        ("1%", 10, 1000, False),
        ("1%", 11, 1000, True),
        ("0", 0, 10, False),
        ("0", 1, 10, True),
        (0, 1, 10, True),
        ("250", 250, 250, False),
        ("0.5%", 1, 100, True),
        ("100%", 5, 5, False),
        ("1%", 0, 0, False),
    ],
)
def test_the_limit_is_a_count_or_a_percentage(limit, quarantined, read, is_exceeded):
    assert plan.parse_quarantine_limit(limit).is_exceeded(quarantined, read) is is_exceeded


@pytest.mark.parametrize("limit", ["", "many", "-1", "101%", "1.5", "%"])
def test_a_limit_that_is_neither_is_refused_with_an_example(limit):
    with pytest.raises(ArgumentError) as err:
        plan.parse_quarantine_limit(limit)
    assert str(err.value) == (
        f"max_quarantined_rows must be a count or a percentage: got {limit!r}; "
        "use for example 100 or '1%'"
    )


def test_only_a_hundred_percent_allows_a_batch_without_a_scored_row():
    assert plan.parse_quarantine_limit("100%").allows_all
    assert not plan.parse_quarantine_limit("99%").allows_all
    assert not plan.parse_quarantine_limit(10**9).allows_all


@pytest.mark.parametrize(
    ("size_bytes", "cores", "columns", "rows"),
    [
        (0, 2, 10, 10_000),
        (4 << 20, 2, 10, 10_000),
        (88 << 20, 2, 10, 36_044),
        (352 << 20, 2, 10, 50_000),
        (352 << 20, 2, 500, 10_000),
        (352 << 20, 2, 0, 50_000),
    ],
)
def test_a_batch_grows_with_a_tasks_data_and_shrinks_with_the_columns(
    size_bytes, cores, columns, rows
):
    assert plan.arrow_rows(size_bytes, cores, columns) == rows


def test_a_batch_that_is_split_by_segment_has_more_rows():
    assert plan.arrow_rows(88 << 20, 2, 10, has_segments=True) == 144_179
    assert plan.arrow_rows(1 << 40, 2, 10, has_segments=True) == 200_000


def test_a_batch_id_changes_with_everything_that_changes_the_rows_and_with_nothing_else():
    base = {"input_table": "t", "input_version": 3, "model_uri": "models:/m/1", "row_filter": None}
    same = dict(reversed(base.items()))
    ids = {plan.batch_id({**base, key: "other"}) for key in base}
    assert plan.batch_id(base) == plan.batch_id(same)
    assert len(ids | {plan.batch_id(base)}) == len(base) + 1


@pytest.mark.parametrize(
    ("size", "cores", "partitions"),
    [
        (10_000, 2, 2),
        (0, 4, 4),
        (64 << 20, 2, 8),
        (10 << 30, 16, 1280),
    ],
)
def test_small_data_is_merged_to_what_a_task_is_worth_but_never_below_the_cores(
    size, cores, partitions
):
    assert plan.merged_partitions(size, cores) == partitions


@pytest.mark.parametrize(
    ("files", "cores", "cost_s", "partitions"),
    [
        (1, 2, 5e-6, 2),  # LightGBM: 1M rows in one file, 7.0 s become 6.0 s
        (1, 2, 0.2e-6, None),  # a linear model: 2.2 s would become 3.2 s
        (2, 2, 1.0, None),  # every core has a file already
        (0, 2, 1.0, None),  # nothing to read, or unknown
    ],
)
def test_a_shuffle_is_planned_only_where_the_model_pays_for_it(files, cores, cost_s, partitions):
    planned = plan.shuffle_partitions(files, cores, 1_000_000, 80_000_000, cost_s)
    assert planned == partitions


def estimate(**arguments):
    measured = {"cores": 4, "seconds_per_row": 1e-5, "memory_bytes": 1, "last_run": None}
    return plan.estimate_job(rows=1_000_000, values_per_row=10, **{**measured, **arguments})


def test_a_job_takes_the_time_of_the_model_and_of_the_values_on_all_cores():
    expected = plan._FIXED_S + 1_000_000 * (1e-5 + 10 * plan._S_PER_VALUE) / 4
    assert estimate().seconds == pytest.approx(expected)
    assert estimate().core_hours == pytest.approx(expected * 4 / 3600)
    assert estimate(cores=None).seconds is None
    assert estimate(seconds_per_row=None).seconds is None


def test_the_last_run_of_the_model_says_more_than_its_measured_cost():
    last_run = (500_000, plan._FIXED_S + 10)
    assert estimate(last_run=last_run).seconds == pytest.approx(plan._FIXED_S + 20)
    assert estimate(last_run=(500_000, 0.1)).seconds == plan._FIXED_S


@pytest.mark.parametrize("price", ["cheap", "-1", -0.5, "nan", "inf"])
def test_a_price_is_a_number_from_0(price):
    with pytest.raises(ArgumentError, match="price_per_core_hour must be a number from 0"):
        plan.parse_price(price)
    assert plan.parse_price("") is None
    assert plan.parse_price("0.12") == 0.12


@pytest.mark.parametrize("zone", ["UTC", "Etc/UTC", "GMT", "Z", "+00:00", "UTC+00:00", "Etc/GMT"])
def test_names_of_utc_are_utc(zone):
    assert plan.is_utc(zone)


@pytest.mark.parametrize("zone", ["Europe/London", "Asia/Tokyo", "+01:00", "UTC+9", "Etc/GMT+5"])
def test_other_zones_are_not_utc(zone):
    assert not plan.is_utc(zone)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("available-now", None),
        ("30 seconds", 30),
        ("1 second", 1),
        (" 5minutes", 300),
        ("2 hours", 7200),
    ],
)
def test_a_trigger_is_available_now_or_an_interval(text, seconds):
    assert plan.parse_trigger(text).interval_s == seconds


@pytest.mark.parametrize("text", ["30", "0 seconds", "-1 seconds", "1 day", "continuous"])
def test_a_trigger_that_is_neither_is_refused_with_an_example(text):
    with pytest.raises(ArgumentError) as err:
        plan.parse_trigger(text)
    assert str(err.value) == (
        f"trigger must be 'available-now' or an interval: got {text!r}; "
        "use for example '30 seconds' or '5 minutes'"
    )
