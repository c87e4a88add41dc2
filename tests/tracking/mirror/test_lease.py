"""A lease keeps two processes from one run, and the run of a killed process is taken over."""

import socket
import subprocess
import time

import pytest

from dbx_aml.tracking.mirror import lease, tags
from dbx_aml.tracking.mirror.lease import Lease
from tests.support.mirror import MirrorStores


def lease_of(pid: int, host: str = "", duration_s: float = 50) -> Lease:
    return Lease(
        host=host or socket.gethostname(), pid=pid, nonce="x", until=time.time() + duration_s
    )


def test_a_run_of_another_process_is_locked_until_that_process_is_gone(
    stores: MirrorStores,
) -> None:
    run_id = stores.create_run("locked")
    with subprocess.Popen(["sleep", "60"]) as holder:
        holder_lease = lease_of(holder.pid)
        stores.source.set_tag(run_id, tags.LEASE, str(holder_lease))
        result = stores.mirror()["locked"]
        assert result.status == "locked"
        assert holder_lease.holder in result.reason
        assert stores.source_tags(run_id)[tags.LEASE] == str(holder_lease)
        assert stores.mirrored_ids(run_id) == []
        holder.kill()
    assert stores.mirror()["locked"].status == "done"


def test_a_lease_expires_also_if_the_clock_of_its_machine_is_a_day_ahead(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = stores.create_run("skewed")
    far_lease = lease_of(1, host="another-machine", duration_s=86_400)
    stores.source.set_tag(run_id, tags.LEASE, str(far_lease))
    monkeypatch.setattr(lease, "LEASE_S", 0.3)
    assert stores.mirror()["skewed"].status == "locked"
    assert stores.mirror(lock_timeout_s=20)["skewed"].status == "done"


def test_artifacts_of_a_killed_program_are_mirrored_although_its_run_never_ended(
    stores: MirrorStores,
) -> None:
    run = stores.source.create_run(
        stores.experiment_id, run_name="killed", tags={tags.STATUS: tags.PENDING}
    )
    stores.source.log_text(run.info.run_id, "a checkpoint", "a.txt")
    child = subprocess.Popen(["true"])
    child.wait()
    stores.source.set_tag(run.info.run_id, tags.LEASE, str(lease_of(child.pid)))

    assert stores.mirror()["killed"].status == "running"

    stores.assert_equal()


@pytest.mark.parametrize("text", [None, "", "free", "host/pid/nonce 5", "host/7/nonce later"])
def test_a_tag_without_a_lease_is_no_lease(text: str | None) -> None:
    assert Lease.parse(text) is None
    assert Lease.parse("a/b/7/nonce 5") == Lease(host="a/b", pid=7, nonce="nonce", until=5)


@pytest.mark.parametrize(
    "text",
    ["host/\u00b2/n 5", f"host/{'9' * 30}/n 5", f"host/1/n {'9' * 400}", "host/-1/n 5", "//", " "],
)
def test_a_tag_that_is_no_lease_is_none(text: str) -> None:
    assert Lease.parse(text) is None
