"""What a job reads of the ledger of its output table."""

import pytest

from dbx_aml.scoring import ledger
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.ledger import COLUMNS, Ledger

pytestmark = pytest.mark.spark


@pytest.mark.parametrize(
    ("condition", "numbers"),
    [(None, [4, 3, 2, 1]), ("batch_id = 'monday'", [4, 3, 1]), ("batch_id = 'friday'", [4, 3])],
)
def test_the_newest_batches_and_those_of_a_condition_are_read_newest_first(
    spark, spark_database, monkeypatch, condition, numbers
) -> None:
    monkeypatch.setattr(ledger, "_NEWEST_BATCHES", 2)
    days = {1: "monday", 2: "tuesday", 3: "wednesday", 4: "thursday"}
    values = {"input_table": "'rows'", "write_mode": "'append'", "identity": "'{}'"}
    values |= {name: name for name in ("batch", "batch_id")}
    row = [
        f"CAST({values.get(name, 'NULL')} AS {kind}) AS {name}" for name, kind in COLUMNS.items()
    ]
    rows = spark.createDataFrame([*days.items()], "batch bigint, batch_id string").selectExpr(*row)
    rows.write.format("delta").saveAsTable(f"{spark_database}.scored_batches")

    entries = Ledger(spark, Table(f"{spark_database}.scored"), None).read(condition)

    assert [entry.facts.batch for entry in entries] == numbers
    assert [entry.facts.batch_id for entry in entries] == [days[number] for number in numbers]
