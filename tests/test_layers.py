"""A module imports only from rows below its own, and the package itself stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import dbx_aml

PACKAGE = Path(dbx_aml.__file__).parent

ORDER = {folder: number for number, folder in enumerate(dbx_aml.FOLDERS)}
# What `import dbx_aml` may cost; scoring/plan only decides.
PURE = {"link", "scoring.plan"}
# What travels with a model to Spark's workers.
TRAVELLING = {
    f"scoring.{name}"
    for name in ("guard", "guard_casts", "guard_loader", "guard_process", "guard_several")
}


@cache
def modules() -> dict[str, ast.Module]:
    """Return each module but the package's own __init__ by its name below the package."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the full name of everything a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            if node.level:
                # The guard travels with a model, where its package has another name.
                assert f"scoring.{node.module}" in TRAVELLING, "imports are absolute"
                yield f"dbx_aml.scoring.{node.module}"
            elif node.module == "dbx_aml":
                yield from (f"dbx_aml.{alias.name}" for alias in node.names)
            else:
                yield node.module


def own_imports(tree: ast.Module) -> set[str]:
    names = {name.split(".")[1] for name in imports(tree) if name.startswith("dbx_aml.")}
    return names & set(ORDER)


def test_the_package_has_the_modules_that_the_other_tests_look_at() -> None:
    assert {"_common.errors", "models.model_uri", "link.experiments", "local.spark"} <= set(
        modules()
    )


def test_the_root_of_the_package_holds_the_listed_folders_and_no_module() -> None:
    entries = {entry.name for entry in PACKAGE.iterdir()} - {"__pycache__"}
    assert entries == {"__init__.py", "py.typed", *dbx_aml.FOLDERS}


@pytest.mark.parametrize("name", modules())
def test_a_module_imports_only_from_folders_above_its_own(name: str) -> None:
    folder = name.split(".")[0]
    upwards = [other for other in own_imports(modules()[name]) if ORDER[other] > ORDER[folder]]
    assert not upwards, f"{name} imports from {upwards}, below it in dbx_aml.FOLDERS"


@pytest.mark.parametrize("name", sorted(TRAVELLING))
def test_what_travels_with_a_model_imports_nothing_else_of_the_package(name: str) -> None:
    own_modules = {name for name in imports(modules()[name]) if name.startswith("dbx_aml")}
    assert own_modules <= {f"dbx_aml.{module}" for module in TRAVELLING}


@pytest.mark.parametrize(
    "name", sorted(name for name in modules() if {name, name.split(".")[0]} & PURE)
)
def test_a_pure_module_needs_only_the_standard_library(name: str) -> None:
    others = {found.split(".")[0] for found in imports(modules()[name])} - {"dbx_aml"}
    assert others <= set(sys.stdlib_module_names)


def test_only_connect_and_the_test_kit_change_the_servers_of_the_whole_process() -> None:
    setters = {"set_tracking_uri", "set_registry_uri"}
    users = {
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in setters
    }
    assert users == {"tracking.connect", "testing.mlflow_store"}


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("dbx_aml", {"mlflow", "pyspark", "pandas", "numpy", "click"}),
        # These refuse wrong arguments at once.
        ("dbx_aml.serving.deploy, dbx_aml.serving.submit", {"mlflow", "pyspark", "pandas"}),
    ],
)
def test_importing_the_package_loads_neither_mlflow_nor_spark_nor_pandas(
    modules: str, absent: set[str]
) -> None:
    code = f"import sys, {modules}; dir(dbx_aml); print(sorted({absent} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_loads_on_demand() -> None:
    assert dbx_aml.__all__ == sorted(dbx_aml.__all__)
    for name in dbx_aml.__all__:
        assert getattr(dbx_aml, name) is not None
    assert set(dbx_aml.__all__) <= set(dir(dbx_aml))


def test_an_unknown_name_is_an_attribute_error_as_of_any_module() -> None:
    with pytest.raises(AttributeError, match=r"module 'dbx_aml' has no attribute 'score'"):
        dbx_aml.score  # noqa: B018 - reading it is the test


def test_only_the_places_of_the_http_policy_send_requests() -> None:
    """A client that is created elsewhere waits as long as a server asks."""
    places = {
        "MlflowClient": {
            "local.notebook.workspace_stub",
            "models.mlflow_client",
        },
        "http_request": {"tracking.azureml.mlflow_calls", "tracking.mirror.server"},
        "HTTPAdapter": {"_common.http"},
        "ApiClient": set(),
        "WorkspaceClient": {"cluster.client"},
        "urlopen": set(),
    }
    callers: dict[str, set[str]] = {name: set() for name in places}
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                function = node.func
                name = getattr(function, "id", None) or getattr(function, "attr", "")
                if name in callers:
                    callers[name].add(module)
    assert callers == places
