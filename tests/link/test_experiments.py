"""Experiment paths and names: valid in both services, and never two for one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbx_aml._common.errors import ExperimentPathError
from dbx_aml.link.experiments import experiment_name, experiment_path, normalize_experiment_path

VALID_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")

parts = st.text(min_size=1, max_size=300).filter(lambda part: "/" not in part and part.strip())
paths = st.lists(parts, min_size=1, max_size=4).map(lambda found: "/" + "/".join(found))


def test_a_path_is_built_from_user_folder_and_name() -> None:
    assert experiment_path("ana@contoso.com", "iris") == "/Users/ana@contoso.com/iris"
    assert experiment_path("ana@contoso.com", "iris", folder="/trials/2013/") == (
        "/Users/ana@contoso.com/trials/2013/iris"
    )


@pytest.mark.parametrize(("user", "name"), [("", "iris"), ("ana", " "), ("ana", "a/b")])
def test_a_path_of_empty_or_nested_parts_is_refused(user: str, name: str) -> None:
    with pytest.raises(ExperimentPathError, match="must be one segment of a path: got "):
        experiment_path(user, name)


def test_the_workspace_prefix_of_the_file_browser_is_removed() -> None:
    assert (
        normalize_experiment_path("/Workspace/Users/ana@contoso.com/iris")
        == "/Users/ana@contoso.com/iris"
    )
    assert normalize_experiment_path("/Workspaces/iris") == "/Workspaces/iris"
    assert experiment_name("/Workspace/Users/a/iris") == experiment_name("/Users/a/iris")


def test_a_relative_path_is_refused_with_an_example() -> None:
    with pytest.raises(ExperimentPathError) as caught:
        normalize_experiment_path("iris")
    assert str(caught.value) == (
        "experiment path must be absolute: got 'iris'; use for example '/Users/<user>/iris'"
    )


@pytest.mark.parametrize("path", ["/", "/Workspace", "/Users//iris", "/Users/ana/", "/Users/ /x"])
def test_a_path_with_an_empty_part_is_refused(path: str) -> None:
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
def test_a_name_says_the_last_part_and_ends_with_a_hash_of_the_whole_path(
    path: str, name: str
) -> None:
    """The names are written out: one that changes would start a second experiment."""
    assert experiment_name(path) == name


def test_two_users_with_the_same_experiment_get_two_names() -> None:
    assert experiment_name("/Users/ana/iris") != experiment_name("/Users/bob/iris")


def test_a_long_name_is_cut_to_256_characters_and_keeps_its_hash() -> None:
    one, other = experiment_name("/Shared/" + "x" * 400), experiment_name("/Shared/" + "x" * 401)
    assert len(one) == len(other) == 256
    assert one[:247] == other[:247] == "x" * 247
    assert one != other


@given(paths)
def test_every_path_gets_a_name_that_azure_ml_accepts(path: str) -> None:
    try:
        name = experiment_name(path)
    except ExperimentPathError:
        assert path.split("/")[1] == "Workspace"
        return
    assert VALID_NAME.fullmatch(name)


@given(paths, paths)
def test_two_paths_never_share_a_name(one: str, other: str) -> None:
    try:
        same_path = normalize_experiment_path(one) == normalize_experiment_path(other)
        same_name = experiment_name(one) == experiment_name(other)
    except ExperimentPathError:
        return
    assert same_name == same_path
