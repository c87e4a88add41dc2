"""`dbx-aml clean`: an option without a value deletes nothing."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from dbx_aml.cli.main import main
from dbx_aml.serving import clean


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--older-than="], "age must be a number of hours, days or weeks: got ''"),
        (["--older-than", "9999999d"], "age must be a number of hours, days or weeks: got '9"),
        (["--only="], "only must name groups of"),
    ],
)
def test_an_empty_or_endless_limit_is_wrong_usage_and_nothing_is_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str], message: str
) -> None:
    deleted: list[object] = []
    monkeypatch.setattr(clean, "delete_resources", lambda *values: deleted.append(values) or [])
    (tmp_path / "config.json").write_text('{"dbx_aml": {"mode": "databricks"}}')
    arguments = ["clean", "--yes", "--config", str(tmp_path), *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert deleted == []
