"""A `config.json` may hold anything: what is wrong is one line without text of the file."""

from pathlib import Path

import pytest

from dbx_aml._common.errors import LinkError
from dbx_aml.link.config_file import SETTING_TYPES, read_config
from dbx_aml.link.link import Link
from dbx_aml.link.workspace import AmlWorkspace


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is no JSON"),
        ('{"hunter2": ', "it is no JSON"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"dbx_aml": ' + "[" * 100_000 + "]" * 100_000 + "}", "it is nested too deeply"),
        ('["hunter2"]', "it is a list"),
        ('"hunter2"', "it is a str"),
        ('{"hunter2": "' + "x" * 2**20 + '"}', "it is larger than 1 MB"),
    ],
)
def test_a_file_that_is_no_json_object_is_one_line(text: str, problem: str) -> None:
    file = Path("config.json").absolute()
    file.write_text(text)
    with pytest.raises(LinkError) as caught:
        Link.load()
    assert str(caught.value) == f"{file} must be a readable JSON object: {problem}; write it again"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('"subscription_id": 7', "subscription_id must be text or null"),
        ('"Scope": ["hunter2"]', "Scope must be text or null"),
        ('"dbx_aml": []', "dbx_aml must be an object"),
        ('"dbx_aml": "hunter2"', "dbx_aml must be an object"),
        ('"dbx_aml": {"mode": ["hunter2"]}', "mode must be text or null"),
        ('"dbx_aml": {"cloud": {"hunter2": 1}}', "cloud must be text or null"),
        ('"dbx_aml": {"retry_timeout_s": true}', "retry_timeout_s must be a number or text"),
        ('"dbx_aml": {"retry_timeout_s": 1e999}', "retry_timeout_s must be a number"),
        ('"dbx_aml": {"client_secret": {"scope": 1}}', "client_secret must be text or an object"),
        ('"dbx_aml": {"experiment": "hunter2\\u0000"}', "experiment must have no control char"),
        ('"dbx_aml": {"tenant_id": "\\u001b[2J"}', "tenant_id must have no control characters"),
        ('"dbx_aml": {"experiment": "\\ud800"}', "experiment must be text"),
    ],
)  # fmt: skip
def test_a_value_of_a_wrong_type_is_one_line_that_names_file_and_setting(
    content: str, problem: str
) -> None:
    file = Path("config.json").absolute()
    file.write_text("{" + content + ', "workspace_name": null}')
    for read in (Link.load, AmlWorkspace.from_config, lambda: Link().save(file)):
        with pytest.raises(LinkError) as caught:
            read()
        message = str(caught.value)
        assert message.startswith(f"{file} must have settings of the right types: {problem}")
        assert message.isprintable()
        assert "hunter2" not in message


def test_every_setting_of_the_file_may_be_missing_or_null() -> None:
    file = Path("config.json")
    nulls = ", ".join(f'"{name}": null' for name in SETTING_TYPES)
    file.write_text('{"subscription_id": null, "Scope": null, "dbx_aml": {' + nulls + "}}")
    assert Link.load() == Link()
    file.write_text('{"dbx_aml": null}')
    assert Link.load() == Link()


def test_a_file_of_another_tool_has_its_own_types() -> None:
    file = Path("config.json")
    file.write_text('{"mode": 7, "subscription": {"a": [1]}}')
    assert read_config(file) == {"mode": 7, "subscription": {"a": [1]}}
    assert Link.load() == Link()
