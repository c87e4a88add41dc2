"""docs/compatibility.md is what the results of the runtimes give, for this release."""

from pathlib import Path

from dbx_aml.cluster.runtimes import known_runtimes
from tests.runtimes.compatibility import PAGE, STEPS, read_results, result_of, with_tables
from tests.runtimes.environment import NAMES


def test_the_page_is_what_the_results_give() -> None:
    """After a change `make runtimes` writes both."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_tables(text, read_results())
    assert "| 16.4 LTS | yes |" in text


def test_every_runtime_ran_every_step_with_this_release_and_its_own_packages() -> None:
    results = read_results()
    assert tuple(results) == NAMES
    setup = (Path(__file__).parents[2] / "setup.py").read_text(encoding="utf-8")
    for name, result in results.items():
        has_plotly = "plotly" in known_runtimes()[name].packages
        assert result["steps"] == [step for step in STEPS if step != "page" or has_plotly], name
        assert f'version="{result["versions"]["dbx-aml"]}"' in setup, name
        for package in ("mlflow-skinny", "numpy", "pandas", "pyarrow"):
            assert result["versions"][package] == known_runtimes()[name].packages[package], name


def test_a_step_that_did_not_run_is_a_no_on_the_page() -> None:
    results = read_results()
    seen = {"link": {}, "track": {}, "versions": {**results["19"]["versions"], "seconds": 3}}

    result = result_of(seen, "2026-11-27")

    assert result["steps"] == ["link", "track"]
    assert "seconds" not in result["versions"]
    text = with_tables(PAGE.read_text(encoding="utf-8"), {**results, "19": result})
    row = f"| 19 | yes | yes |{' no |' * 7} 2026-11-27 |"
    assert row in text.splitlines()
    assert row not in PAGE.read_text(encoding="utf-8")
