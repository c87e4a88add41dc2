"""The reason of a failure in the log of a scoring server."""

import textwrap

from dbx_aml.serving.server_log import find_reason, reason_or_last_lines


def test_the_reason_of_a_failure_is_the_models_exception_not_the_servers() -> None:
    log = textwrap.dedent(
        """
        2026-11-26 I [1] azmlinfsrv - Encountered Exception: Traceback (most recent call last):
          File "model.py", line 3, in predict
        mlflow.exceptions.MlflowException: Model must have 'hour': got
        0 200.0. Add it.

        The above exception was the direct cause of the following exception:

        Traceback (most recent call last):
          File "user_script.py", line 139, in invoke_run
        azureml_inference_server_http.server.user_script.UserScriptException: Caught an error
        Note: a line of the model
        """
    )
    reason = "mlflow.exceptions.MlflowException: Model must have 'hour': got 0 200.0. Add it."
    assert find_reason(log) == reason
    long_reason = find_reason(log.replace("0 200.0.", "0 200.0.\n" * 1000))
    assert long_reason.startswith("mlflow.exceptions.MlflowException: Model must have 'hour'")
    assert long_reason.endswith("0 200.0. Add it.")
    assert len(long_reason) < 400
    assert find_reason("2026-11-26 I [1] azmlinfsrv - ready\n") == ""


def test_a_log_without_an_exception_is_told_by_its_last_lines() -> None:
    log = (
        "Starting\nTraceback (most recent call last):\n  File 'x'\n"
        "ModuleNotFoundError: No module named 'skops'\n\nDuring handling ...\n"
        "azureml_inference_server_http.UserScriptImportException: Failed to import\nWorker exits\n"
    )
    assert reason_or_last_lines(log) == "ModuleNotFoundError: No module named 'skops'"
    assert reason_or_last_lines("a\nb\n\nc\nd\n") == "b c d"
