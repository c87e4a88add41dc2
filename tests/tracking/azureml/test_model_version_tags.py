"""Aliases in the tags of model versions."""

from types import SimpleNamespace

from dbx_aml.tracking.azureml.model_version_tags import timestamp, versions_by_alias


def test_the_latest_tag_of_an_alias_counts() -> None:
    earlier, later = timestamp(), timestamp()
    assert earlier < later
    versions = [
        SimpleNamespace(version="2", tags={"dbx_aml.alias.champion": later, "team": "risk"}),
        SimpleNamespace(version="10", tags={"dbx_aml.alias.champion": earlier}),
        SimpleNamespace(version="1", tags={"dbx_aml.alias.first": earlier}),
    ]
    assert versions_by_alias(versions) == {"champion": "2", "first": "1"}
