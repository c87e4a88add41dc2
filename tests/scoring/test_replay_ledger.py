"""A replay reads the ledger of a table with many batches."""

import json

import pytest

from dbx_aml.scoring import ledger
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.ledger import COLUMNS
from dbx_aml.scoring.replay import _batch_before, _find_entry


@pytest.mark.spark
@pytest.mark.parametrize(("name", "before"), [("b/1", "b/0"), ("b/0", "a/2"), ("a/0", None)])
def test_the_micro_batch_before_an_old_one_is_found(
    spark, spark_database, monkeypatch, name, before
):
    monkeypatch.setattr(ledger, "_NEWEST_BATCHES", 2)
    output = Table(f"{spark_database}.scored")
    spark.createDataFrame([(1,)], "id int").write.format("delta").saveAsTable(output.name)
    (detail,) = spark.sql(f"DESCRIBE DETAIL {output.name}").collect()
    values = {"input_table": "'rows'", "write_mode": "'incremental'", "batch": "batch"}
    identity = json.dumps({"stream": "s"})
    values |= {"batch_id": "batch_id", "identity": f"'{identity}'", "output_id": f"'{detail.id}'"}
    row = [f"CAST({values.get(key, 'NULL')} AS {kind}) AS {key}" for key, kind in COLUMNS.items()]
    names = [f"{query}/{number}" for query in "ab" for number in range(3)] + ["b/3", "b/4"]
    rows = spark.createDataFrame([*enumerate(names)], "batch bigint, batch_id string")
    rows.selectExpr(*row).write.format("delta").saveAsTable(f"{output.name}_batches")

    entry, older_entries = _find_entry(spark, output, name)

    assert entry.facts.batch_id == name
    found = _batch_before(entry, older_entries)
    assert (None if found is None else found.facts.batch_id) == before
