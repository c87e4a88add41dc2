"""The guard in another process of Python: its answers, its end, and the error of each end."""

import os
import platform
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from textwrap import dedent

import numpy as np
import pandas as pd
import psutil
import pytest
from pandas.testing import assert_frame_equal

from dbx_aml._common.deadline import poll_until
from dbx_aml.local.pinned_environment import PinnedEnvironment
from dbx_aml.scoring import guard_loader, guard_process
from dbx_aml.scoring.column_binding import ModelOutput
from dbx_aml.scoring.guard import Limits
from dbx_aml.scoring.guard_loader import ModelCache
from dbx_aml.scoring.guard_process import GuardProcess, ProcessGuard
from dbx_aml.scoring.guarded_model import GuardedModel, wrap_in_guard
from dbx_aml.scoring.pinned_model import PinnedModel
from tests.support.models import XY, save_model

# This Python, as an environment.
PINNED = PinnedEnvironment(python="3.12", requirements=())
OWN = {
    "hash": PINNED.hash,
    "folder": sys.prefix,
    "packages": f"lib/python{platform.python_version().rpartition('.')[0]}/site-packages",
    "archive": None,
    "timeout_s": 120.0,
}


def guarded(folder: Path, *environments: PinnedEnvironment | None) -> str:
    """Save a model for each environment, wrap them and return the folder that a worker gets."""

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
    models = [
        GuardedModel(
            model=PinnedModel(
                uri="m", name=None, version=None, run_id=None, inputs=(), outputs=(output,),
                folder=Path(save_model(folder, predict, XY)), content="1", files=str(number),
                environment=(), own_environment=own,
            ),
            outputs=[output] if number == 0 else [replace(output, field="challenger_p0")],
            unscorable_reasons=[],
            columns=["x", "y"],
            positions=[0, 1],
        )
        for number, own in enumerate(environments or (PINNED,))
    ]  # fmt: skip
    places = {each.hash: {**OWN, "hash": each.hash} for each in environments or (PINNED,) if each}
    return str(wrap_in_guard(models, folder / "guarded_model", places) / "guarded")


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
        [{"a": 1, "b": [1.5, None]}, None, {"a": np.int64(2), "b": np.array([0.1], np.float32)}],
        [{1: "x"}, {}, {2: None}],
        [[{"k": "v"}, None], [], None],
        [np.array([np.array([1, 2]), np.array([3])], object), np.array([], object), None],
        [{"t": pd.Timestamp("2013-10-27 02:30:00.000001")}, {"t": pd.NaT}, {"t": None}],
        [np.array(["2013-01-01"], "M8[us]"), np.array(["2013-01-01"], "M8[ns]"), None],
        [{"d": Decimal("1.10"), "b": b"\x00"}, {"d": date(2013, 1, 1), "b": np.bool_(1)}, None],
    ],
    ids=str,
)
def test_values_of_every_type_come_through_the_socket_as_they_are(column) -> None:
    rows = pd.DataFrame({"a": column, "b": 1})
    sender, receiver = socket.socketpair()
    with sender, receiver:
        guard_process._send(sender, rows, {"position": 1})
        guard_process._send(sender, rows[["a"]].iloc[:1])
        received, model = guard_process._receive(receiver)
        second, _ = guard_process._receive(receiver)
    assert model == {"position": 1}
    assert_frame_equal(received, rows)
    # Also the type of each nested value.
    assert repr(list(received["a"])) == repr(list(rows["a"]))
    assert len(second) == 1
    # A model may change the values in place.
    for frame in (received, second):
        assert all(column.to_numpy().flags.writeable for _, column in frame.items())


def test_a_table_that_is_cut_off_counts_as_the_end_of_the_process() -> None:
    sender, receiver = socket.socketpair()
    with sender, receiver:
        guard_process._send(sender, XY)
        message = receiver.recv(1 << 20)
    for size in (0, 4, 10, 300, len(message) - 20):
        sender, receiver = socket.socketpair()
        with receiver:
            with sender:
                sender.sendall(message[:size])
            with pytest.raises(EOFError):
                guard_process._receive(receiver)


@pytest.mark.slow
def test_one_process_answers_all_batches_as_the_guard_does_and_its_end_is_named(
    tmp_path, monkeypatch
) -> None:
    folder = guarded(tmp_path)
    rows = pd.DataFrame({"x": [1.0, -1.0, 3.0], "y": 0.0})
    models = ModelCache()
    try:
        guard = models.load(folder, {})
        first = guard.predict(rows)
        (pid,) = models.process_ids
        local = ModelCache(PINNED.hash).load_one(folder, 0).predict(rows.copy())
        local["p0"] *= pid / os.getpid()
        assert_frame_equal(first, local)
        assert list(first["reason"]) == ["", "ValueError: x is negative", ""]
        # Another task of the worker.
        again = models.load(folder, {})
        assert_frame_equal(again.predict(rows[:1]), local[:1], check_categorical=False)
        assert models.process_ids == [pid]

        limited = ProcessGuard(guard._process, folder, 0, Limits(strict_job="1"))
        with pytest.raises(RuntimeError, match=r"an error on every row, ValueError: x is negative"):
            limited.predict(rows[1:2])
        with pytest.raises(RuntimeError, match=r"own Python ended with status 7: .*out of luck$"):
            guard.predict(pd.DataFrame({"x": [-7.0], "y": 0.0}))
        assert not psutil.pid_exists(pid)

        restarted = models.load(folder, {})
        (new_pid,) = models.process_ids
        assert new_pid != pid
        monkeypatch.setattr(guard_process, "_receive", lambda source: (rows[:2], {}))
        with pytest.raises(RuntimeError, match=r"own Python answered 2 rows for 3"):
            restarted.predict(rows)
        assert not psutil.pid_exists(new_pid)
    finally:
        models.forget()


@pytest.mark.slow
def test_each_environment_has_a_process_which_ends_with_the_last_job_that_has_it(
    tmp_path, monkeypatch
) -> None:
    other = replace(PINNED, requirements=("six==1.17.0",))
    (tmp_path / "second").mkdir()
    both, one = guarded(tmp_path, PINNED, other), guarded(tmp_path / "second", None, other)
    rows = pd.DataFrame({"x": [1.0, -1.0], "y": 0.0})
    models = ModelCache()
    try:
        result = models.load(both, {}).predict(rows)
        ids = models.process_ids
        assert [result["p0"][0], result["challenger_p0"][0]] == ids
        assert len({*ids, os.getpid()}) == 3
        assert list(result["challenger_reason"]) == ["", "ValueError: x is negative"]
        # The champion of the next job runs here, and its challenger where the last one ran.
        result = models.load(one, {}).predict(rows)
        assert [result["p0"][0], result["challenger_p0"][0]] == [os.getpid(), ids[1]]
        assert models.process_ids == ids[1:]
        assert not psutil.pid_exists(ids[0])
        # Of too many processes the one ends that was used longest ago.
        monkeypatch.setattr(guard_loader, "_MOST_PROCESSES", 1)
        models.load_one(both, 0).predict(rows)
        assert not psutil.pid_exists(ids[1])
    finally:
        models.forget()


def test_a_process_that_does_not_answer_in_time_is_ended(tmp_path) -> None:
    folder = guarded(tmp_path)
    process = GuardProcess(folder, {**OWN, "timeout_s": 0.1})
    with pytest.raises(RuntimeError, match=r"did not answer a batch of 2 rows in 0\.1 s"):
        process.predict(XY, folder, 0)
    assert not psutil.pid_exists(process.process_id)


def test_a_model_that_does_not_load_is_named_with_its_error(tmp_path) -> None:
    folder = guarded(tmp_path)
    (Path(folder) / "spec.json").write_text("{}")
    with pytest.raises(RuntimeError, match=r"ended with status 1: .*KeyError: 'models'"):
        GuardProcess(folder, OWN).predict(XY, folder, 0)


@pytest.mark.slow
def test_the_process_ends_with_its_worker_also_in_the_middle_of_a_prediction(tmp_path) -> None:
    folder = guarded(tmp_path)
    code = f"""
        import pandas as pd
        from dbx_aml.scoring.guard_process import GuardProcess

        process = GuardProcess({folder!r}, {OWN!r})
        process.predict(pd.DataFrame({{"x": [1.0], "y": 1.0}}), {folder!r}, 0)
        print(process.process_id, flush=True)
        process.predict(pd.DataFrame({{"x": [-8.0], "y": 1.0}}), {folder!r}, 0)
    """
    command = [sys.executable, "-c", dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        pid = int(worker.stdout.readline())
        worker.kill()
    assert poll_until(
        lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", 10, 0.05
    )
