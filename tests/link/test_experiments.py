"""Experiment paths and names: valid in both services, one name for each path."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbx_aml._common.errors import ExperimentPathError
from dbx_aml.link.experiments import (
    experiment_name,
    normalize_experiment_path,
    user_experiment_path,
)

VALID_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")

segments = st.text(min_size=1, max_size=300).filter(lambda text: "/" not in text and text.strip())
paths = st.lists(segments, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))


def test_a_path_is_built_from_user_folder_and_name() -> None:
    assert user_experiment_path("ana@contoso.com", "iris") == "/Users/ana@contoso.com/iris"
    assert user_experiment_path("ana@contoso.com", "iris", folder="/trials/2013/") == (
        "/Users/ana@contoso.com/trials/2013/iris"
    )


@pytest.mark.parametrize(("user", "name"), [("", "iris"), ("ana", " "), ("ana", "a/b")])
def test_a_path_of_empty_or_nested_segments_is_refused(user: str, name: str) -> None:
    with pytest.raises(ExperimentPathError, match="must be one segment of a path: got "):
        user_experiment_path(user, name)


def test_the_workspace_prefix_of_the_file_browser_is_removed() -> None:
    assert (
        normalize_experiment_path("/Workspace/Users/ana@contoso.com/iris")
        == "/Users/ana@contoso.com/iris"
    )
    assert normalize_experiment_path("/Workspaces/iris") == "/Workspaces/iris"
    assert experiment_name("/Workspace/Users/a/iris") == experiment_name("/Users/a/iris")


def test_a_relative_path_is_refused_with_an_example() -> None:
    with pytest.raises(ExperimentPathError, match="'iris'; use for example '/Users/<user>/iris'"):
        normalize_experiment_path("iris")


@pytest.mark.parametrize("path", ["/", "/Workspace", "/Users//iris", "/Users/ana/", "/Users/ /x"])
def test_a_path_with_an_empty_segment_is_refused(path: str) -> None:
    with pytest.raises(ExperimentPathError, match="must have no empty segment: got "):
        experiment_name(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/Users/ana@contoso.com/iris", "iris-145f1174"),
        ("/Shared/Größe (é) 日本", "Gro-e-e-47e12d7a"),
        ("/Shared/日本", "experiment-6538a1aa"),
        ("/Shared/__a b__", "a-b-2ac9564b"),
    ],
)
def test_a_name_is_the_last_segment_and_a_hash_of_the_whole_path(path: str, name: str) -> None:
    """The test has whole names: a changed name would start a second experiment."""
    assert experiment_name(path) == name


def test_two_users_with_the_same_experiment_get_two_names() -> None:
    assert experiment_name("/Users/ana/iris") != experiment_name("/Users/bob/iris")


def test_a_long_name_is_cut_to_256_characters_and_keeps_its_hash() -> None:
    names = [experiment_name("/Shared/" + "x" * length) for length in (400, 401)]
    assert [len(name) for name in names] == [256, 256]
    assert {name[:247] for name in names} == {"x" * 247}
    assert names[0] != names[1]


@given(paths)
def test_every_path_gets_a_name_that_azure_ml_accepts(path: str) -> None:
    try:
        name = experiment_name(path)
    except ExperimentPathError:
        assert path.split("/")[1] == "Workspace"
        return
    assert VALID_NAME.fullmatch(name)


@given(paths, paths)
def test_two_paths_never_share_a_name(path: str, second_path: str) -> None:
    try:
        is_same_path = normalize_experiment_path(path) == normalize_experiment_path(second_path)
        is_same_name = experiment_name(path) == experiment_name(second_path)
    except ExperimentPathError:
        return
    assert is_same_name == is_same_path
