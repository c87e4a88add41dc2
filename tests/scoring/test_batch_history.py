"""For any history of a job, its tables hold what a plain model in Python says."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbx_aml import score_table
from dbx_aml._common.errors import ScoringError
from tests.support.models import XY, save_model

pytestmark = [pytest.mark.spark, pytest.mark.slow]

FACTORS = (10.0, 100.0)
MODELS = st.integers(0, len(FACTORS) - 1)
STEPS = st.sampled_from(["writing the quarantine", "writing the ledger"])
OPERATIONS = st.one_of(
    st.tuples(st.just("insert"), st.lists(st.sampled_from([-1.0, 1.0, 2.0]), max_size=3)),
    st.tuples(st.just("make again")),
    st.tuples(st.just("score"), MODELS, st.booleans()),
    st.tuples(st.just("score"), MODELS, st.booleans()),
    st.tuples(st.just("die and retry"), MODELS, STEPS, MODELS),
    st.tuples(st.just("delete"), st.integers(0, 3)),
    st.tuples(st.just("restore"), st.integers(0, 5)),
)
HISTORIES = st.lists(OPERATIONS, min_size=3, max_size=7)


class DeadJobError(Exception):
    """The job ends here, as far as the package can tell."""


@dataclass
class Batch:
    """Rows (id, prediction) of a batch, and the ids that the model refused."""

    name: str
    rows: list[tuple[int, float]]
    refused: list[int]


@dataclass
class Expected:
    """The right content of the tables."""

    mode: str
    input_rows: list[tuple[int, float]] = field(default_factory=list)
    input_state: int = 0
    output: list[tuple[int, float, str]] = field(default_factory=list)
    quarantine: dict[str, list[int]] = field(default_factory=dict)
    batches: dict[tuple[int, int], Batch] = field(default_factory=dict)

    def score(self, model: int, *, rescore: bool) -> str:
        """Score as the job does; return its status, or "refused"."""
        key = (model, self.input_state)
        if self.mode == "append" and key in self.batches:
            batch = self.batches[key]
            there = sum(name == batch.name for *_, name in self.output)
            if there == len(batch.rows):
                return "already_scored"
            if rescore:
                self.output = [row for row in self.output if row[2] != batch.name]
                self.output += [(*row, batch.name) for row in batch.rows]
                return "scored"
            return "already_scored" if there else "refused"
        name = f"{len(self.batches)}"
        rows = [(i, FACTORS[model] * x) for i, x in self.input_rows if x >= 0]
        refused = [i for i, x in self.input_rows if x < 0]
        self.batches[key] = Batch(name, rows, refused)
        if self.mode == "append":
            self.quarantine[name] = refused
        kept = self.output
        if self.mode == "replace":
            kept = []
        elif self.mode == "merge":
            ids = {i for i, _ in self.input_rows}
            kept = [row for row in self.output if row[0] not in ids]
        self.output = [*kept, *((*row, name) for row in rows)]
        return "scored"


class History:
    """A job that runs many times on the same tables."""

    def __init__(self, spark, models, folder, mode):
        self.spark, self.models, self.folder = spark, models, folder
        self.expected = Expected(mode)
        self.input = "history_input"
        self.output = f"delta.`{folder}/out`"
        self.snapshots = []
        self.next_id = 0
        self.drop_input()
        self.spark.sql(f"CREATE TABLE {self.input} (id INT, x DOUBLE, y DOUBLE) USING delta")
        self.insert([1.0, -1.0])

    def drop_input(self):
        self.spark.sql(f"DROP TABLE IF EXISTS {self.input}")

    def insert(self, values):
        rows = [(self.next_id + i, x) for i, x in enumerate(values)]
        self.next_id += len(values)
        if rows:
            texts = ", ".join(f"({i}, {x}D, 1D)" for i, x in rows)
            self.spark.sql(f"INSERT INTO {self.input} VALUES {texts}")
            self.expected.input_rows += rows
            self.expected.input_state += 1

    def make_again(self):
        self.drop_input()
        self.spark.sql(f"CREATE TABLE {self.input} (id INT, x DOUBLE, y DOUBLE) USING delta")
        rows, self.expected.input_rows = self.expected.input_rows, []
        self.expected.input_state += 1
        texts = ", ".join(f"({i}, {x}D, 1D)" for i, x in rows)
        self.spark.sql(f"INSERT INTO {self.input} VALUES {texts}")
        self.expected.input_rows = rows

    def run(self, model, **arguments):
        mode = self.expected.mode
        return score_table(
            model_uri=self.models[model],
            input_table=self.input,
            output_table=self.output,
            write_mode=mode,
            key_columns="id" if mode == "merge" else None,
            max_quarantined_rows="100%",
            spark=self.spark,
            **arguments,
        )

    def score(self, model, rescore):
        status = self.expected.score(model, rescore=rescore)
        try:
            result = self.run(model, rescore=rescore)
        except ScoringError as err:
            assert status == "refused", err
            return
        assert status != "refused"
        if self.expected.mode == "append":
            assert result.status == status
        self.remember()

    def die_and_retry(self, model, step, retry_model):
        def die(name, _done, _total):
            if name == step:
                raise DeadJobError

        try:
            self.run(model, progress=die)
        except DeadJobError:
            # The retry finishes this batch, whatever it goes on with.
            self.expected.score(model, rescore=False)
            if model == retry_model:
                self.run(model)
                self.remember()
                return
        except ScoringError:
            pass
        else:
            self.expected.score(model, rescore=False)
            self.remember()
        self.score(retry_model, rescore=False)

    def remember(self):
        history = self.spark.sql(f"DESCRIBE HISTORY {self.output} LIMIT 1").collect()
        self.snapshots.append((history[0]["version"], list(self.expected.output)))

    def delete(self, row_id):
        if self.snapshots:
            self.spark.sql(f"DELETE FROM {self.output} WHERE id = {row_id}")
            self.expected.output = [row for row in self.expected.output if row[0] != row_id]
            self.remember()

    def restore(self, number):
        if self.snapshots:
            version, rows = self.snapshots[number % len(self.snapshots)]
            self.spark.sql(f"RESTORE TABLE {self.output} TO VERSION AS OF {version}")
            self.expected.output = list(rows)
            self.remember()

    def check(self):
        if not self.snapshots:
            return
        output = self.spark.sql(f"SELECT id, prediction FROM {self.output}").collect()
        expected = Counter((i, prediction) for i, prediction, _ in self.expected.output)
        assert Counter((row["id"], row["prediction"]) for row in output) == expected
        if self.expected.mode == "append":
            expected_ids = Counter(i for ids in self.expected.quarantine.values() for i in ids)
            found = []
            if expected_ids:
                quarantine = f"delta.`{self.folder}/out_quarantine`"
                found = self.spark.sql(f"SELECT id FROM {quarantine}").collect()
            assert Counter(row["id"] for row in found) == expected_ids


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    def times(factor):
        def predict(rows):
            if (rows["x"] < 0).any():
                raise ValueError("x must not be negative")
            return factor * rows["x"]

        return save_model(tmp_path_factory.mktemp("model"), predict, XY)

    return [times(factor) for factor in FACTORS]


@pytest.fixture
def check_history(spark, models, tmp_path_factory):
    def check(mode, operations):
        history = History(spark, models, tmp_path_factory.mktemp("history"), mode)
        try:
            for name, *arguments in operations:
                getattr(history, name.replace(" ", "_"))(*arguments)
                history.check()
        finally:
            history.drop_input()

    return check


CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
@settings(
    max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=CHECKS
)
@given(operations=HISTORIES)
def test_after_a_random_history_the_tables_are_as_a_plain_model_says(
    check_history, mode, operations
):
    check_history(mode, operations)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
@settings(max_examples=50, deadline=None, suppress_health_check=CHECKS)
@given(operations=HISTORIES)
def test_after_many_random_histories_the_tables_are_as_a_plain_model_says(
    check_history, mode, operations
):
    check_history(mode, operations)
