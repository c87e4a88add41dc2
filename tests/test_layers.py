"""A module imports only from rows below its own, and the package itself stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dbx_aml

PACKAGE = Path(dbx_aml.__file__).parent

# A folder stands for all modules in it.
ROWS = {
    "errors": -2,  # every row may raise
    "config_file": -1,
    "marker": 0,
    "runtime_packages": 0,
    "workspace": 0,
    "experiment": 0,
    "runtimes": 0,
    "model_uri": 0,
    "settings": 1,
    "auth": 2,
    "jvm": 2,
    "pins": 2,
    "warehouse": 2,
    "tracking": 3,
    "local": 3,
    "init_script": 3,
    "wheelhouse": 3,
    "registry": 4,  # changes MLflow's registry URI for a while: tracking.connect
    "scoring": 4,
    "endpoint": 4,
    "remote": 4,
    "cluster": 4,
    "notebook": 4,
    "in_force": 4,
    "sample": 4,
    "diagnosis": 5,
    "demo": 5,
    "cli": 6,
}
# Rows 0 and 1 are what `import dbx_aml` may cost; scoring/plan only decides.
PURE = {name for name, row in ROWS.items() if row < 2} | {"scoring.plan"}


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
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            if node.module == "dbx_aml":
                yield from (f"dbx_aml.{alias.name}" for alias in node.names)
            else:
                yield node.module


def own_imports(tree: ast.Module) -> set[str]:
    return {name.split(".")[1] for name in imports(tree) if name.startswith("dbx_aml.")}


def test_the_package_has_the_modules_that_the_other_tests_look_at() -> None:
    assert {"errors", "model_uri", "experiment", "local"} <= set(modules())


@pytest.mark.parametrize("name", modules())
def test_a_module_has_a_row_and_imports_only_from_rows_below(name: str) -> None:
    home = name.split(".")[0]
    assert home in ROWS, f"give {home} a row in DESIGN.md and here"
    known = {other: ROWS[other] for other in own_imports(modules()[name]) if other in ROWS}
    upwards = [other for other, row in known.items() if row >= ROWS[home] and other != home]
    assert not upwards, f"{name} (row {ROWS[home]}) imports {upwards}"


@pytest.mark.parametrize(
    "name", sorted(name for name in modules() if {name, name.split(".")[0]} & PURE)
)
def test_a_pure_module_needs_only_the_standard_library(name: str) -> None:
    others = {found.split(".")[0] for found in imports(modules()[name])} - {"dbx_aml"}
    assert others <= set(sys.stdlib_module_names)


def test_importing_the_package_loads_neither_mlflow_nor_spark_nor_pandas() -> None:
    code = (
        "import sys, dbx_aml; dir(dbx_aml);"
        "print(sorted({'mlflow', 'pyspark', 'pandas', 'numpy', 'click'} & set(sys.modules)))"
    )
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
