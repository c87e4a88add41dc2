"""The guard in another process of Python: its answers, its end, and the error of each end."""

import io
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent

import numpy as np
import pandas as pd
import psutil
import pytest
from pandas.testing import assert_frame_equal

from dbx_aml._common.deadline import poll_until
from dbx_aml.scoring import guard_loader, guard_process
from dbx_aml.scoring.column_binding import ModelOutput
from dbx_aml.scoring.guard import Limits
from dbx_aml.scoring.guard_process import GuardProcess, ProcessGuard
from dbx_aml.scoring.guarded_model import GuardedModel, wrap_in_guard
from dbx_aml.scoring.pinned_model import PinnedModel
from tests.support.models import XY, save_model

# This Python, as an environment.
OWN = {
    "folder": sys.prefix,
    "packages": f"lib/python{platform.python_version().rpartition('.')[0]}/site-packages",
    "archive": None,
    "timeout_s": 120.0,
}


def guarded(folder: Path) -> str:
    """Save a model, wrap it in the guard and return the folder that a worker gets."""

    def predict(rows):
        sys.stdout.write("a print of the model\n")
        if (rows["x"] == -7).any():
            sys.stderr.write("out of luck\n")
            sys.stderr.flush()
            os._exit(7)
        if (rows["x"] == -8).any():
            threading.Event().wait()
        if (rows["x"] < 0).any():
            raise ValueError("x is negative")
        return rows["x"] * os.getpid()

    output = ModelOutput(name="0", field="p0", type="double", is_list=False, length=None)
    model = PinnedModel(
        uri="m", name=None, version=None, run_id=None, folder=Path(save_model(folder, predict, XY)),
        inputs=(), outputs=(output,), content="1", files="1", environment=(),
    )  # fmt: skip
    wrapped = GuardedModel(model=model, outputs=[output], unscorable_reasons=[], columns=None)
    return str(wrap_in_guard([wrapped], folder / "guarded_model", OWN) / "guarded")


@pytest.mark.parametrize(
    "column",
    [
        [0.1 + 0.2, float("nan"), float("-inf")],
        np.array([1.5, np.nan, 3.4e38], np.float32),
        [2**63 - 1, -(2**63), 2**53 + 1],
        np.array([2**31 - 1, 0, -1], np.int32),
        [True, False, True],
        [True, None, False],
        ["größe", None, ""],
        [None, None, None],
        [b"\x00\xff", None, b""],
        pd.to_datetime(["1677-09-22 00:12:43.145225", None, "2262-04-11 23:47:16.854775"]),
        [np.array([0.5, np.nan]), None, np.array([], np.float64)],
        [np.array(["a", None, ""], object), None, np.array([], object)],
        [np.array([1, 2**31 - 1], np.int32), np.array([], np.int32), None],
        pd.Categorical(["", "reason", ""]),
    ],
    ids=str,
)
def test_values_of_every_type_come_through_the_socket_as_they_are(column) -> None:
    rows = pd.DataFrame({"a": column})
    stream = io.BytesIO()
    guard_process._send(stream, rows)
    guard_process._send(stream, rows.iloc[:1])
    source = io.BufferedReader(io.BytesIO(stream.getvalue()))
    assert_frame_equal(guard_process._receive(source), rows)
    assert len(guard_process._receive(source)) == 1
    with pytest.raises(EOFError):
        guard_process._receive(source)


def test_a_table_that_is_cut_off_counts_as_the_end_of_the_process() -> None:
    stream = io.BytesIO()
    guard_process._send(stream, XY)
    for size in (10, 300, len(stream.getvalue()) - 20):
        with pytest.raises(EOFError):
            guard_process._receive(io.BufferedReader(io.BytesIO(stream.getvalue()[:size])))


@pytest.mark.slow
def test_one_process_answers_all_batches_as_the_guard_does_and_its_end_is_named(
    tmp_path, monkeypatch
) -> None:
    folder = guarded(tmp_path)
    rows = pd.DataFrame({"x": [1.0, -1.0, 3.0], "y": 0.0})
    try:
        guard = guard_loader._load_pyfunc(folder)
        first = guard.predict(rows)
        pid = guard.process.process_id
        local = guard_loader.load_guard(folder).predict(rows.copy())
        local["p0"] *= pid / os.getpid()
        assert_frame_equal(first, local)
        assert list(first["reason"]) == ["", "ValueError: x is negative", ""]
        # Another task of the worker.
        again = guard_loader._load_pyfunc(folder)
        assert_frame_equal(again.predict(rows[:1]), local[:1], check_categorical=False)
        assert again.process is guard.process

        limited = ProcessGuard(guard.process, Limits(strict_job="1"))
        with pytest.raises(RuntimeError, match=r"an error on every row, ValueError: x is negative"):
            limited.predict(rows[1:2])
        with pytest.raises(RuntimeError, match=r"own Python ended with status 7: .*out of luck$"):
            guard.predict(pd.DataFrame({"x": [-7.0], "y": 0.0}))
        assert not psutil.pid_exists(pid)

        restarted = guard_loader._load_pyfunc(folder)
        assert restarted.process.process_id != pid
        monkeypatch.setattr(guard_process, "_receive", lambda source: rows[:2])
        with pytest.raises(RuntimeError, match=r"own Python answered 2 rows for 3"):
            restarted.predict(rows)
        assert not psutil.pid_exists(restarted.process.process_id)
    finally:
        guard_loader.forget_models()


def test_a_process_that_does_not_answer_in_time_is_ended(tmp_path) -> None:
    process = GuardProcess(guarded(tmp_path), {**OWN, "timeout_s": 0.1})
    with pytest.raises(RuntimeError, match=r"did not answer a batch of 2 rows in 0\.1 s"):
        process.predict(XY)
    assert not psutil.pid_exists(process.process_id)


def test_a_model_that_does_not_load_is_named_with_its_error(tmp_path) -> None:
    folder = guarded(tmp_path)
    (Path(folder) / "spec.json").write_text("{}")
    with pytest.raises(RuntimeError, match=r"ended with status 1: .*KeyError: 'models'"):
        GuardProcess(folder, OWN).predict(XY)


@pytest.mark.slow
def test_the_process_ends_with_its_worker_also_in_the_middle_of_a_prediction(tmp_path) -> None:
    code = f"""
        import pandas as pd
        from dbx_aml.scoring.guard_process import GuardProcess

        process = GuardProcess({guarded(tmp_path)!r}, {OWN!r})
        process.predict(pd.DataFrame({{"x": [1.0], "y": 1.0}}))
        print(process.process_id, flush=True)
        process.predict(pd.DataFrame({{"x": [-8.0], "y": 1.0}}))
    """
    command = [sys.executable, "-c", dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        pid = int(worker.stdout.readline())
        worker.kill()
    assert poll_until(
        lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", 10, 0.05
    )
