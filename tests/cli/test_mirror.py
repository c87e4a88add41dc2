"""`dbx-aml mirror`: options, exit codes, tables, JSON, one line for an error."""

import json
import time
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path

import pytest
from click import Context
from click.testing import CliRunner, Result

from dbx_aml.cli.main import main
from dbx_aml.tracking.mirror import server, tags
from tests.support.isolation import isolate_from_machine
from tests.support.mirror import EXPERIMENT_PATH, MirrorStores


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MirrorStores:
    isolate_from_machine(monkeypatch, tmp_path)
    return MirrorStores(tmp_path)


def dbx_aml_mirror(stores: MirrorStores, *arguments: str) -> Result:
    subcommands = [argument for argument in arguments[:1] if argument in ("status", "verify")]
    options = [*stores.uri_options, *arguments[len(subcommands) :]]
    return CliRunner().invoke(main, ["mirror", *subcommands, *options], env={"COLUMNS": "200"})


def json_output(result: Result) -> dict:
    return json.loads(result.stdout)


def test_pending_runs_are_mirrored_and_other_runs_only_if_they_are_included(
    stores: MirrorStores,
) -> None:
    marked_id = stores.create_run("marked")
    unmarked_id = stores.source.create_run(stores.experiment_id, run_name="old").info.run_id
    stores.source.log_metric(unmarked_id, "m", 1.0)
    stores.source.set_terminated(unmarked_id)

    plan = json_output(dbx_aml_mirror(stores, "--dry-run", "--json"))
    assert [run["run_id"] for run in plan["runs"]] == [marked_id]
    assert marked_id in dbx_aml_mirror(stores, "--dry-run").output
    assert stores.mirrored_ids(marked_id) == []
    assert tags.LEASE not in stores.source_tags(marked_id)
    done = dbx_aml_mirror(stores)
    assert done.exit_code == 0, done.output
    assert marked_id in done.output
    assert done.output.endswith("1 done\n")
    assert stores.mirrored_ids(unmarked_id) == []
    options = ("--since", "1h", "--include-unmarked", "--experiment", EXPERIMENT_PATH)
    assert dbx_aml_mirror(stores, *options).exit_code == 0
    stores.assert_equal()
    # A value that is logged after the run was mirrored changes the digest of the run.
    stores.source.log_metric(marked_id, "late", 2.0)
    output = json_output(dbx_aml_mirror(stores, "--include-unmarked", "--json"))
    assert output["counts"] == {"done": 2}
    (run,) = [run for run in output["runs"] if run["run_id"] == marked_id]
    assert (run["run_id"], run["metric_points"]) == (marked_id, 1)
    assert run["destination_run_id"] == stores.mirrored_ids(marked_id)[0]
    stores.assert_equal()
    assert dbx_aml_mirror(stores).output == "2 unchanged\n"
    since = ("--since", "2099-01-01", "--include-unmarked")
    assert dbx_aml_mirror(stores, *since).output == "nothing to mirror\n"


def test_a_run_that_is_not_mirrored_is_one_line_and_exit_code_1(stores: MirrorStores) -> None:
    run_id = stores.create_run("bad")
    stores.mirror()
    (mirrored_id,) = stores.mirrored_ids(run_id)
    stores.destination.log_param(mirrored_id, "beta", "2")
    stores.source.log_param(run_id, "beta", "1")

    done = dbx_aml_mirror(stores, "--run-id", run_id)

    assert done.exit_code == 1
    assert "1 failed" in done.stdout
    assert done.stderr.startswith("dbx-aml: every run must be mirrored: 1 of 1 were not")
    (counts,) = json_output(dbx_aml_mirror(stores, "status", "--json"))
    assert (counts["experiment"], counts["failed"], counts["done"]) == (EXPERIMENT_PATH, 1, 0)
    assert "['beta']" in counts["reasons"][0]


def test_verify_prints_each_difference_and_exits_1(stores: MirrorStores) -> None:
    run_id = stores.create_run("run")
    stores.mirror()
    assert dbx_aml_mirror(stores, "verify").output == "1 run compared, 0 differences\n"
    stores.source.set_tag(run_id, "team", "c")

    table = dbx_aml_mirror(stores, "verify")
    output = dbx_aml_mirror(stores, "verify", "--json")

    assert table.exit_code == output.exit_code == 1
    assert "1 run compared, 1 difference" in table.stdout
    assert run_id in table.stdout
    assert f"in 1 of 1 run; mirror them with 'dbx-aml mirror --run-id {run_id}'" in output.stderr
    assert json_output(output) == {
        "runs": 1,
        "differences": [
            {"run_id": run_id, "kind": "tag", "name": "team", "source": "c", "destination": "a b"}
        ],
    }


def test_a_deleted_run_that_was_never_mirrored_is_neither_planned_nor_a_difference(
    stores: MirrorStores,
) -> None:
    stores.source.delete_run(stores.create_run("deleted"))
    run_id = stores.create_run("run")
    (run,) = json_output(dbx_aml_mirror(stores, "--dry-run", "--json"))["runs"]
    assert run["run_id"] == run_id
    assert dbx_aml_mirror(stores).exit_code == 0
    # As a mirror leaves the run that is killed before it sets the status.
    stores.source.set_tag(run_id, tags.STATUS, tags.PENDING)
    (run,) = json_output(dbx_aml_mirror(stores, "--dry-run", "--json"))["runs"]
    assert run["run_id"] == run_id
    assert dbx_aml_mirror(stores).exit_code == 0
    done = dbx_aml_mirror(stores, "verify", "--include-pending")
    assert done.output == "1 run compared, 0 differences\n"


def test_a_run_or_an_experiment_that_is_named_twice_is_mirrored_once(stores: MirrorStores) -> None:
    run_id = stores.create_run("run")
    output = json_output(dbx_aml_mirror(stores, "--run-id", run_id, "--run-id", run_id, "--json"))
    assert [run["metric_points"] for run in output["runs"]] == [5]
    experiment = ("--experiment", EXPERIMENT_PATH)
    (counts,) = json_output(dbx_aml_mirror(stores, "status", *experiment, *experiment, "--json"))
    assert counts["done"] == 1


def test_status_counts_by_experiment_with_the_age_of_the_oldest_run(stores: MirrorStores) -> None:
    assert "no run of" in dbx_aml_mirror(stores, "status").output
    stores.create_run("done")
    stores.mirror()
    old_run = stores.source.create_run(
        stores.experiment_id,
        start_time=int((time.time() - 3 * 86_400) * 1000),
        tags={tags.STATUS: tags.PENDING},
    )
    (counts,) = json_output(dbx_aml_mirror(stores, "status", "--json"))
    assert (counts["pending"], counts["done"], counts["failed"]) == (1, 1, 0)
    assert 3 * 86_400 <= counts["oldest_pending_s"] < 3 * 86_400 + 600
    assert "3 d" in dbx_aml_mirror(stores, "status", "--experiment", EXPERIMENT_PATH).output
    assert tags.LEASE not in stores.source_tags(old_run.info.run_id)


def test_wrong_input_is_one_line_and_changes_nothing(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_CHECK_TIMEOUT_S", 0.5)
    run_id = stores.create_run("kept")
    closed_server = "http://127.0.0.1:9"
    for arguments, message in (
        (("--experiment", "/nope"), "experiment must exist in"),
        (("--run-id", "0" * 32), "run must exist in"),
        (("status", "--experiment", "/nope"), "experiment must exist in"),
        (("--destination-tracking-uri", stores.source_uri), "source and destination must be two"),
        (("--source-tracking-uri", closed_server), f"MLflow server {closed_server} must"),
        (("--destination-tracking-uri", closed_server), f"MLflow server {closed_server} must"),
    ):
        failed = dbx_aml_mirror(stores, *arguments)
        assert failed.exit_code == 1, arguments
        assert failed.output.startswith(f"dbx-aml: {message}"), failed.output
        assert failed.output.count("\n") == 1, failed.output
    assert CliRunner().invoke(main, ["mirror"]).exit_code == 1
    assert dbx_aml_mirror(stores, "--watch", "5", "--dry-run").exit_code == 2
    assert stores.source_tags(run_id)[tags.STATUS] == tags.PENDING
    assert stores.mirrored_ids(run_id) == []


@pytest.mark.parametrize(
    "text",
    ["soon", "6", "20261124", "1764000000", "2026-11", "2026-11-24T8", "6 h", "999999d", "-6h"],
)
def test_since_refuses_what_is_neither_a_time_nor_a_duration(text: str) -> None:
    result = CliRunner().invoke(main, ["mirror", f"--since={text}"])
    assert result.exit_code == 2
    assert f"or a duration before now (30m, 6h, 2d): got {text!r}" in " ".join(
        result.output.split()
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24T08:00", datetime(2026, 11, 24, 8, tzinfo=UTC)),
        ("2026-11-24T08:00:30+01:00", datetime(2026, 11, 24, 7, 0, 30, tzinfo=UTC)),
        ("2026-11-24T08:00Z", datetime(2026, 11, 24, 8, tzinfo=UTC)),
    ],
)
def test_since_reads_a_time_as_utc_unless_it_has_a_zone(text: str, expected: datetime) -> None:
    (option,) = (option for option in main.commands["mirror"].params if option.name == "since")
    start = option.process_value(Context(main), text)
    assert datetime.fromtimestamp(start / 1000, UTC) == expected


def test_options_have_the_names_of_the_python_arguments() -> None:
    mirror = main.commands["mirror"]
    option_names = {parameter.name for parameter in mirror.params}
    server_arguments = set(signature(server.servers_of_link).parameters) - {"link"}
    assert server_arguments == {"source_tracking_uri", "destination_tracking_uri"}
    for command in (mirror, *mirror.commands.values()):
        assert server_arguments <= {parameter.name for parameter in command.params}
    for parameter in mirror.params:
        name = parameter.name.removesuffix("s") if parameter.multiple else parameter.name
        expected = "json" if name == "as_json" else name.replace("_", "-")
        assert parameter.opts == [f"--{expected}"]
    assert option_names >= {"include_unmarked", "run_ids", "experiments", "since", "config"}
