"""Names of experiments that Azure ML accepts."""

from dbx_aml.link.experiments import accepted_experiment_name, experiment_name


def test_a_name_that_azure_ml_accepts_stays_and_any_other_name_is_mapped() -> None:
    assert accepted_experiment_name("iris-2_b") == "iris-2_b"
    path = "/Users/ana@contoso.com/team/iris"
    assert accepted_experiment_name(path) == experiment_name(path)
    names = [path, "/Users/bob@contoso.com/team/iris", "my iris", "_iris", "a" * 257, "fleurs été"]
    mapped = [accepted_experiment_name(name) for name in names]
    assert len(set(mapped)) == len(names)
    assert [accepted_experiment_name(name) for name in mapped] == mapped
