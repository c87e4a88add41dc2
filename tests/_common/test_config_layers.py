"""Settings from several places."""

import pytest

from dbx_aml._common.config_layers import Layer, resolve


def test_the_first_place_that_has_a_setting_counts_and_all_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEAM_MODE", "aml")
    monkeypatch.setenv("TEAM_REGION", "")
    settings = resolve(
        [
            Layer(values={"region": None}, origin="argument"),
            Layer.from_environment("TEAM_", ["mode", "region"]),
            Layer(values={"mode": "dual", "region": "westeurope"}, origin="config.json"),
        ]
    )
    assert (settings["mode"].value, settings["mode"].origin) == ("aml", "TEAM_MODE")
    assert settings["mode"].is_contradicted
    assert settings["mode"].sources[1] == ("dual", "config.json")
    assert (settings["region"].value, settings["region"].origin) == ("westeurope", "config.json")
    assert not settings["region"].is_contradicted


def test_false_and_zero_are_values() -> None:
    assert resolve([Layer(values={"a": 0, "b": False}, origin="argument")])["a"].value == 0
