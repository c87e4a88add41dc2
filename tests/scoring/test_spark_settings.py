import pytest

from dbx_aml.scoring.spark_settings import exclusive_settings, larger_arrow_batches

ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"

pytestmark = pytest.mark.spark


def test_settings_of_a_statement_do_not_reach_the_users_session(spark):
    key = "spark.databricks.delta.commitInfo.userMetadata"
    with exclusive_settings(spark, {key: "mine"}) as session:
        assert session.conf.get(key) == "mine"
        assert session.catalog.currentDatabase() == spark.catalog.currentDatabase()
        assert spark.conf.get(key, None) is None


def test_a_statement_has_the_settings_of_the_users_session(spark):
    key = "fs.azure.account.auth.type.ana.dfs.core.windows.net"
    spark.conf.set(key, "OAuth")
    try:
        with exclusive_settings(spark, {}) as session:
            assert session.conf.get(key) == "OAuth"
    finally:
        spark.conf.unset(key)


def test_two_jobs_at_once_share_the_larger_batches_and_the_last_one_puts_them_back(spark):
    first, second = larger_arrow_batches(spark, 40_000), larger_arrow_batches(spark, 50_000)
    first.__enter__()
    second.__enter__()
    assert spark.conf.get(ROWS) == "40000"
    first.__exit__(None, None, None)
    assert spark.conf.get(ROWS) == "40000"
    second.__exit__(None, None, None)
    assert spark.conf.get(ROWS) == "10000"


def test_a_number_of_rows_that_the_user_has_chosen_stays(spark):
    spark.conf.set(ROWS, "500")
    try:
        with larger_arrow_batches(spark, 50_000):
            assert spark.conf.get(ROWS) == "500"
        assert spark.conf.get(ROWS) == "500"
    finally:
        spark.conf.unset(ROWS)
