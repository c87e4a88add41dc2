"""Lineage is read from the tags of a version in whatever spelling its registry takes."""

from dbx_aml.models.lineage import (
    copy_tag,
    is_lineage_tag,
    read_copies,
    read_lineage,
    version_tags_for,
)

TAGS = {"dbx_aml.source_run_id": "4be1", "team.owner": "ana "}


def test_unity_catalog_gets_keys_without_reserved_characters_and_values_without_blanks() -> None:
    assert version_tags_for("databricks-uc://east", TAGS) == {
        "dbx_aml_source_run_id": "4be1",
        "team_owner": "ana",
    }
    assert version_tags_for("databricks", TAGS) == TAGS


def test_lineage_is_read_in_both_spellings() -> None:
    for registry_uri in ("databricks-uc", "sqlite:///m.db"):
        tags = version_tags_for(registry_uri, TAGS)
        assert read_lineage(tags) == {"dbx_aml.source_run_id": "4be1"}
        assert [is_lineage_tag(key) for key in tags] == [True, False]


def test_the_source_names_each_of_its_copies() -> None:
    tags = copy_tag("azureml:/w", "models:/a/1") | copy_tag("azureml:/w", "models:/b/2")
    tags |= copy_tag("azureml:/w", "models:/a/3")
    copies = [("azureml:/w", "models:/a/3"), ("azureml:/w", "models:/b/2")]
    assert read_copies(tags) == copies
    assert read_copies(version_tags_for("databricks-uc", tags)) == copies
