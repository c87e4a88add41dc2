import pytest

from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring.column_binding import (
    ModelColumn,
    ModelOutput,
    bind_columns,
    check_outputs,
    prediction_expression,
    udf_columns,
    unscorable,
)


def columns(**types):
    return [ModelColumn(name=name, type=kind) for name, kind in types.items()]


@pytest.mark.parametrize(
    ("source_type", "model_type"),
    [
        ("tinyint", "integer"),
        ("smallint", "long"),
        ("int", "long"),
        ("int", "double"),
        ("float", "double"),
        ("smallint", "float"),
        ("decimal(15,2)", "double"),
        ("decimal(9,0)", "integer"),
        ("decimal(18,0)", "long"),
        ("varchar(10)", "string"),
        ("char(3)", "string"),
        ("date", "datetime"),
        ("timestamp", "datetime"),
        ("timestamp_ntz", "datetime"),
        ("binary", "binary"),
        ("boolean", "boolean"),
        ("array<double>", "array<double>"),
    ],
)
def test_a_type_that_loses_nothing_is_converted(source_type, model_type):
    (bound,) = bind_columns(columns(x=model_type), {"x": source_type})
    assert (bound.column, bound.source_type, bound.type) == ("x", source_type, model_type)


@pytest.mark.parametrize(
    ("source_type", "model_type"),
    [
        ("bigint", "double"),
        ("bigint", "integer"),
        ("int", "float"),
        ("double", "float"),
        ("double", "long"),
        ("string", "double"),
        ("int", "string"),
        ("decimal(16,2)", "double"),
        ("decimal(9,2)", "integer"),
        ("decimal(19,0)", "long"),
        ("decimal(5,1)", "float"),
        ("boolean", "integer"),
        ("array<int>", "array<double>"),
    ],
)
def test_a_type_that_may_lose_something_is_refused_with_both_types(source_type, model_type):
    with pytest.raises(ScoringError) as err:
        bind_columns(columns(x=model_type), {"x": source_type})
    assert f"'x' is {source_type}, the model takes {model_type}" in str(err.value)
    assert "without loss" in str(err.value)


def test_every_missing_and_every_lossy_column_is_named_in_one_line():
    with pytest.raises(ScoringError) as err:
        bind_columns(
            columns(a="double", b="double", c="long", d="double"), {"b": "string", "d": "double"}
        )
    assert str(err.value) == (
        "input table must have the model's columns: missing 'a' (double), 'c' (long); also 'b' is "
        "string, the model takes double; got ['b', 'd']"
    )


def test_an_optional_column_may_be_missing_and_is_used_where_it_is_there():
    inputs = [
        ModelColumn(name="x", type="double"),
        ModelColumn(name="z", type="double", required=False),
    ]
    assert [one.name for one in bind_columns(inputs, {"x": "double"})] == ["x"]
    assert [one.name for one in bind_columns(inputs, {"z": "double", "x": "double"})] == ["x", "z"]


def test_an_exact_name_wins_over_one_in_another_case():
    assert bind_columns(columns(x="double"), {"X": "double", "x": "double"})[0].column == "x"
    assert bind_columns(columns(Delay="double"), {"delay": "double"})[0].column == "delay"


def test_a_column_of_the_table_goes_to_one_column_of_the_model():
    with pytest.raises(ScoringError, match=r"missing 'X' \(double\)"):
        bind_columns(columns(x="double", X="double"), {"x": "double"})
    with pytest.raises(ScoringError, match=r"missing 'aB' \(double\), 'Ab' \(double\)"):
        bind_columns(columns(aB="double", Ab="double"), {"ab": "double"})
    bound = bind_columns(columns(x="double", X="double"), {"X": "double", "x": "double"})
    assert [(one.name, one.column) for one in bound] == [("x", "x"), ("X", "X")]


def test_a_model_column_that_matches_two_table_columns_inexactly_is_refused():
    with pytest.raises(ScoringError, match=r"missing 'Delay' \(double\)"):
        bind_columns(columns(Delay="double"), {"delay": "double", "DELAY": "double"})


def test_an_optional_integer_may_be_null_and_the_guard_is_told_where():
    inputs = [ModelColumn(name="n", type="long", required=False)]
    bound = bind_columns(inputs, {"n": "bigint"})
    assert unscorable(bound) == (None, ())
    assert udf_columns(bound) == {
        "n": "coalesce(`n`, CAST(0 AS bigint))",
        "_dbx_aml_missing_n": "`n` IS NULL",
    }


@pytest.mark.parametrize(
    ("data_type", "condition"),
    [
        ("array<double>", None),
        ("struct<a:double,b:map<string,array<float>>>", None),
        ("array<bigint>", "exists(`x`, element_0 -> element_0 IS NULL)"),
        (
            "map<string,array<string>>",
            "exists(map_values(`x`), element_0 -> "
            "exists(element_0, element_1 -> element_1 IS NULL))",
        ),
        (
            "struct<a:decimal(9,2),b:struct<at:timestamp>>",
            "CAST(`x`.`b`.`at` AS timestamp_ntz) NOT BETWEEN "
            "TIMESTAMP_NTZ'1677-09-22 00:00:00' AND TIMESTAMP_NTZ'2262-04-11 00:00:00'",
        ),
    ],
)
def test_a_nested_value_that_would_reach_the_model_as_another_is_unscorable(data_type, condition):
    (bound,) = bind_columns(columns(x=data_type), {"x": data_type})
    assert bound.unscorable_when == condition
    expression = f"CASE WHEN {condition} THEN NULL ELSE `x` END" if condition else "`x`"
    assert bound.expression == expression


def test_rows_a_model_cannot_be_given_have_a_code_and_a_reason():
    bound = bind_columns(columns(i="integer", x="double"), {"i": "int", "x": "double"})
    assert unscorable(bound) == (
        "CASE WHEN `i` IS NULL THEN 1 ELSE 0 END",
        ("column 'i' must not be null: the model takes an integer",),
    )
    assert unscorable(bind_columns(columns(x="double"), {"x": "double"})) == (None, ())


def test_backticks_in_a_column_name_are_escaped():
    (bound,) = bind_columns(columns(**{"a`b": "double"}), {"a`b": "double"})
    assert bound.expression == "`a``b`"


def test_predictions_of_several_outputs_become_one_struct_by_name():
    outputs = [
        ModelOutput(name="it's", field="p0", type="double"),
        ModelOutput(name="b", field="p1", type="string"),
    ]
    assert prediction_expression(outputs, "r") == (
        "named_struct('it\\'s', coalesce(r.p0, CAST('NaN' AS double)), "
        "'b', IF(r.p1_null, NULL, r.p1))"
    )


def test_an_output_that_spark_cannot_return_exactly_is_refused():
    with pytest.raises(ScoringError, match=r"got when \(datetime\)"):
        check_outputs([ModelOutput(name="when", field="p0", type="datetime")])
