"""A Kafka topic as the input: a message is a row of the model, or goes to the quarantine."""

import os
import subprocess
import sys

import pytest

from dbx_aml import score_table
from dbx_aml._common.errors import ArgumentError, LinkError
from dbx_aml.link.secret_reference import SecretRef
from dbx_aml.scoring.column_binding import ModelColumn
from dbx_aml.scoring.kafka import KafkaTopic
from dbx_aml.scoring.unasked_rows import UNREADABLE
from tests.support.kafka import running_broker

EVENT_HUB = "ana.servicebus.windows.net:9093"
CONNECTION = "Endpoint=sb://{}/;SharedAccessKeyName=read;SharedAccessKey=c2VjcmV0"
TOPIC_JOB = {
    "model_uri": "models:/m/1",
    "output_table": "delta.`/output`",
    "source": "kafka",
    "topic": "t",
    "bootstrap_servers": EVENT_HUB,
    "write_mode": "incremental",
}
COLUMNS = (
    ModelColumn(name="x", type="double"),
    ModelColumn(name="n", type="long", required=False),
)

MESSAGES = {
    '{"x": 1, "n": 2, "more": "text"}': (1.0, 2, None),
    '{"n": null, "x": null}': (None, None, None),
    '{"n": 2}': (None, 2, "message must have the model's columns: missing x"),
    '{"x": "one"}': (None, None, "message must have the types of the model's columns"),
    '{"x": 1, "n": 2.5}': (1.0, None, "message must have the types of the model's columns"),
    '{"x": 1': (1.0, None, "message must be one JSON object"),
    '{"x": 1} {"x": 2}': (1.0, None, "message must be one JSON object"),
    '{"x": 1}, {"x": 2}': (1.0, None, "message must be one JSON object"),
    '{"x": 1}] more': (1.0, None, "message must be one JSON object"),
    '{"x": 1}} more': (1.0, None, "message must be one JSON object"),
    '[{"x": 1}]': (1.0, None, "message must be one JSON object"),
    "7": (None, None, "message must be one JSON object"),
    "": (None, None, "message must be one JSON object"),
    None: (None, None, "message must have a value: got none"),
}


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize("is_required", [True, False])
def test_a_message_is_a_row_of_the_models_columns_or_has_a_reason(spark, is_required):
    columns = COLUMNS if is_required else COLUMNS[1:]
    topic = KafkaTopic(topic="t", bootstrap_servers="h:1", columns=columns)
    rows = [(text, number) for number, text in enumerate(MESSAGES)]
    messages = spark.createDataFrame(rows, "value string, offset bigint").selectExpr(
        "CAST(value AS BINARY) AS value", "'t' AS topic", "0 AS partition", "offset",
        "timestamp'2026-01-01' AS timestamp",
    )  # fmt: skip
    parsed = topic.parse(messages).select(
        "_message_text", *(["x"] if is_required else []), "n", UNREADABLE, "_message.offset"
    )
    result = {row[0]: row for row in parsed.collect()}
    assert [row.offset for row in result.values()] == list(range(len(MESSAGES)))
    reasons = {text: row[UNREADABLE] for text, row in result.items()}
    if is_required:
        assert reasons == {text: reason for text, (_, _, reason) in MESSAGES.items()}
        readable = [text for text, reason in reasons.items() if reason is None]
        values = {text: (result[text].x, result[text].n) for text in readable}
        assert values == {text: MESSAGES[text][:2] for text in readable}
    else:
        assert reasons['{"x": "one"}'] is None


def test_a_secret_is_a_login_of_its_own_event_hub_and_is_never_shown(monkeypatch):
    reference = SecretRef(env="HUB")
    topic = KafkaTopic(topic="t", bootstrap_servers=EVENT_HUB, connection_secret=reference)
    connection = CONNECTION.format("ana.servicebus.windows.net")
    monkeypatch.setenv("HUB", f"{connection}\n")
    assert topic._options() == {
        "subscribe": "t",
        "kafka.bootstrap.servers": EVENT_HUB,
        "kafka.security.protocol": "SASL_SSL",
        "kafka.sasl.mechanism": "PLAIN",
        "kafka.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule "
        f'required username="$ConnectionString" password="{connection}";',
    }
    assert "c2VjcmV0" not in repr(topic)
    for secret, rule in (
        (CONNECTION.format("eve.servicebus.windows.net"), "must be of the event hub in bootstrap"),
        ("ana:c2VjcmV0", "must be a connection string of an event hub, or a line of"),
    ):
        monkeypatch.setenv("HUB", secret)
        with pytest.raises(ArgumentError, match=rule) as error:
            topic._options()
        assert "c2VjcmV0" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"topic": ""}, "topic must be given: got ''"),
        ({"topic": "a b"}, "topic must be the name of one Kafka topic: got 'a b'"),
        ({"bootstrap_servers": "ana"}, "bootstrap_servers must be hosts with ports"),
        ({"input_table": "flights"}, "input_table must not go with source 'kafka': got 'flights'"),
        ({"source": "table"}, "topic must not go with source 'table': got 't'"),
        ({"source": "hub"}, "source must be one of table, kafka: got 'hub'"),
        ({"write_mode": "append"}, "write_mode must be 'incremental' for source 'kafka'"),
    ],
)
def test_an_input_that_is_not_clear_is_refused(arguments, line):
    with pytest.raises(ArgumentError) as error:
        score_table(**{**TOPIC_JOB, **arguments})
    assert str(error.value).startswith(line)


def test_the_text_of_a_secret_is_refused_and_not_repeated():
    with pytest.raises(LinkError, match="secret must be a reference") as error:
        score_table(**TOPIC_JOB, connection_secret=CONNECTION)
    assert "c2VjcmV0" not in str(error.value)


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tests_marked_kafka_pass_with_a_broker():
    """In another process: the session of the other tests has no Kafka source."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "--dbx-aml-kafka", "-m", "kafka", "-q"]
    finished = subprocess.run(
        [*command, "-p", "no:cacheprovider", __file__],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-8000:]
    assert " passed" in finished.stdout
    assert "skipped" not in finished.stdout


@pytest.fixture
def broker(request, tmp_path):
    if not request.config.getoption("--dbx-aml-kafka"):
        pytest.skip("needs a session with Kafka's source; ask with --dbx-aml-kafka -m kafka")
    with running_broker(tmp_path / "broker") as broker:
        yield broker


@pytest.mark.kafka
def test_messages_are_scored_once_also_after_a_restart_of_the_broker_and_a_lost_checkpoint(
    spark, broker, score, choosy_model, output_table, tmp_path
):
    def send(*texts):
        frame = spark.createDataFrame([(text,) for text in texts], "value string")
        options = {"kafka.bootstrap.servers": broker.servers, "topic": "flights"}
        frame.coalesce(1).write.format("kafka").options(**options).save()

    def score_topic(**arguments):
        defaults = {
            "input_table": "",
            "source": "kafka",
            "topic": "flights",
            "bootstrap_servers": broker.servers,
            "write_mode": "incremental",
            "max_quarantined_rows": "80%",
            "row_filter": "x < 100",
        }
        return score(choosy_model, **{**defaults, **arguments})

    def output():
        rows = f"SELECT x, y, prediction FROM {output_table} ORDER BY x"
        return [tuple(row) for row in spark.sql(rows).collect()]

    send('{"x": 1, "y": 2}', '{"x": -1, "y": 2}', '{"x": 500, "y": 0}', "no json")
    first = score_topic()
    counts = first.rows_read, first.rows_scored, first.rows_quarantined
    assert (first.status, *counts) == ("scored", 3, 1, 2)
    assert output() == [(1.0, 2.0, 12.0)]
    quarantine = spark.sql(
        "SELECT _message_text, _message.topic, _quarantine.reason, _message.offset "
        f"FROM {first.quarantine_table} ORDER BY _message_text"
    ).collect()
    assert [tuple(row[:3]) for row in quarantine] == [
        ("no json", "flights", "message must be one JSON object"),
        ('{"x": -1, "y": 2}', "flights", "ValueError: x is negative"),
    ]
    assert {row.offset for row in quarantine} <= {0, 1, 2, 3}
    assert score_topic().status == "no_new_rows"

    broker.stop()
    broker.start()
    send('{"x": 3, "y": 4}')
    assert score_topic().rows_read == 1
    send('{"x": 5, "y": 6}')
    other = {"checkpoint_location": str(tmp_path / "other")}
    assert score_topic(**other).rows_read == 1
    assert output() == [(1.0, 2.0, 12.0), (3.0, 4.0, 34.0), (5.0, 6.0, 56.0)]
