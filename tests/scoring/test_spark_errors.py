import pytest
from pyspark.errors import PySparkException

from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring.guard_process import NO_ANSWER
from dbx_aml.scoring.spark_errors import name_process_end, process_end_error, spark_error_line
from tests.support.models import XY, save_model


def test_a_worker_that_the_model_ended_is_one_line_with_the_fatal_error():
    err = PySparkException(
        "Job aborted due to stage failure\n\tat org.apache\n"
        "Caused by: org.apache.spark.SparkException: Python worker exited unexpectedly (crashed): "
        "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1"
    )
    with pytest.raises(ScoringError) as raised, name_process_end():
        raise err
    message = str(raised.value)
    assert message.startswith(
        "model must leave Spark's Python worker running: got one which ended while the model "
        "scored, for example by os._exit, a crash of native code or too little memory "
        "(Segmentation fault); predict a few rows outside Spark"
    )
    assert "\n" not in message


def test_a_lost_executor_is_named():
    message = str(process_end_error(PySparkException("ExecutorLostFailure (executor 1 exited)")))
    assert "got one whose executor was lost or ran out of memory;" in message


@pytest.mark.parametrize("kind", [PySparkException, RuntimeError])
def test_the_end_of_the_models_own_process_is_one_line_with_its_last_words(kind):
    err = kind(f"Traceback\nRuntimeError: {NO_ANSWER}ended with status 7: a | out of luck\n\tat a")
    with pytest.raises(ScoringError) as raised, name_process_end():
        raise err
    assert str(raised.value).startswith(
        "model must answer in its own environment: its Python ended with status 7: a | out of "
        "luck; predict a few rows there"
    )


def test_another_error_of_spark_stays_what_it_is():
    err = PySparkException("[DIVIDE_BY_ZERO] x")
    assert process_end_error(err) is None
    with pytest.raises(PySparkException) as raised, name_process_end():
        raise err
    assert raised.value is err


def test_a_failed_write_task_gives_its_last_cause():
    err = PySparkException(
        "An error occurred while calling o1.save.\n"
        ": org.apache.spark.SparkException: [TASK_WRITE_FAILED] Task failed. SQLSTATE: 58030\n"
        "\tat org.apache\nCaused by: java.lang.RuntimeException: first\n\tat a\n"
        "Caused by: org.apache.spark.SparkArithmeticException: [DIVIDE_BY_ZERO] Division by zero."
        " SQLSTATE: 22012\n"
    )
    assert spark_error_line(err) == "SparkArithmeticException: [DIVIDE_BY_ZERO] Division by zero"


@pytest.mark.slow
@pytest.mark.parametrize("has_output", [True, False])
def test_a_model_that_ends_its_process_is_one_line(spark, delta_table, score, tmp_path, has_output):
    def end_process(rows):
        import os

        if len(rows) != 2:
            os._exit(3)
        return rows["x"]

    frame = spark.createDataFrame([(1.0, 1.0)] * 3, "x double, y double").coalesce(1)
    arguments = {}
    if has_output:
        arguments["output_table"] = delta_table(frame.selectExpr("*", "x AS prediction"))
    with pytest.raises(ScoringError, match=r"^model must leave Spark's Python worker running"):
        score(save_model(tmp_path, end_process, XY), delta_table(frame), **arguments)
