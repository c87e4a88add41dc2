"""A Kafka topic, or an event hub by Kafka's protocol, as the input of a stream.

The value of a message is a JSON object with the model's columns. A message that cannot be read goes
to the quarantine with its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from dbx_aml._common.databricks_runtime import running_version
from dbx_aml._common.errors import ArgumentError
from dbx_aml._common.text import sql_identifier, sql_literal
from dbx_aml.azure.credential_sources import resolve_secret
from dbx_aml.link.secret_reference import SecretRef
from dbx_aml.scoring.column_binding import ModelColumn, spark_type_of
from dbx_aml.scoring.table_identity import TableIdentity
from dbx_aml.scoring.unasked_rows import UNREADABLE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Columns beside the model's: where a message is from, and its text, for the quarantine.
MESSAGE, TEXT = "_message", "_message_text"
_MESSAGE_FIELDS = ("topic", "partition", "offset", "timestamp")
_MESSAGE_TYPE = "struct<topic:string,partition:int,offset:bigint,timestamp:timestamp>"
_CORRUPT = "_dbx_aml_corrupt"
_SERVER = re.compile(r"[\w.-]+:\d+")
_LOGIN_MODULE = "org.apache.kafka.common.security.plain.PlainLoginModule"


@dataclass(frozen=True, kw_only=True)
class KafkaTopic:
    """A topic as the input of a stream.

    Args:
        topic: Name of the topic, or of the event hub.
        bootstrap_servers: Hosts with ports, separated by commas, for example
            "ana.servicebus.windows.net:9093".
        connection_secret: Place of the secret: the connection string of an event hub, or a line
            of Kafka's `sasl.jaas.config`. None for a broker without a login.
        columns: Input columns of the model; known when the model is.

    Raises:
        ArgumentError: The topic or a server is no name that Kafka knows.
    """

    topic: str
    bootstrap_servers: str
    connection_secret: SecretRef | None = None
    columns: tuple[ModelColumn, ...] = ()

    # A topic has no folder. The attribute has the name of a table's.
    path = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]{1,249}", self.topic):
            raise ArgumentError(
                f"topic must be the name of one Kafka topic: got {self.topic!r}; "
                "use letters, digits, '.', '_' and '-'"
            )
        if not all(map(_SERVER.fullmatch, self.bootstrap_servers.split(","))):
            raise ArgumentError(
                "bootstrap_servers must be hosts with ports, separated by commas: got "
                f"{self.bootstrap_servers!r}; use for example 'ana.servicebus.windows.net:9093'"
            )

    @property
    def name(self) -> str:
        """Servers and topic, for example "kafka://localhost:9092/flights"."""
        return f"kafka://{self.bootstrap_servers}/{self.topic}"

    @property
    def identity(self) -> TableIdentity:
        """The topic as an input without versions."""
        return TableIdentity(name=self.name, id=None, location=None, kind="topic")

    def version(self, spark: SparkSession) -> int | None:
        """Return None: a topic has no versions."""
        return None

    def read(self, spark: SparkSession, version: int | None = None) -> DataFrame:
        """Return no row, with the columns of the topic's messages."""
        fields = ", ".join(
            f"{sql_identifier(name)} {kind}" for name, kind in self._column_types().items()
        )
        return spark.createDataFrame([], fields)

    def read_stream(self, spark: SparkSession, offsets: str | None) -> DataFrame:
        """Return the messages as a stream, each with the reason why it cannot be read.

        Args:
            spark: Session.
            offsets: First offset of each partition, as Spark's `startingOffsets`; None for all
                messages that the topic still has.
        """
        reader = spark.readStream.format("kafka").options(**self._options())
        reader = reader.option("startingOffsets", offsets or "earliest")
        return self.parse(reader.load())

    def parse(self, messages: DataFrame) -> DataFrame:
        """Return messages as rows of the model's columns.

        Shape:
            n messages -> n rows: the model's columns, `MESSAGE`, `TEXT`, `UNREADABLE`.
        """
        fields = ", ".join(
            f"{sql_identifier(column.name)} {spark_type_of(column)}" for column in self.columns
        )
        options = f"map('mode', 'PERMISSIVE', 'columnNameOfCorruptRecord', '{_CORRUPT}')"
        schema = sql_literal(f"{fields}, {_CORRUPT} string")
        text = messages.select(
            F.col("value").cast("string").alias(TEXT),
            F.struct(*_MESSAGE_FIELDS).alias(MESSAGE),
        )
        parsed = text.withColumn("_dbx_aml_row", F.expr(f"from_json({TEXT}, {schema}, {options})"))
        return parsed.select(
            *(
                F.col(f"_dbx_aml_row.{sql_identifier(column.name)}").alias(column.name)
                for column in self.columns
            ),
            MESSAGE,
            TEXT,
            F.expr(self._unreadable_reason()).alias(UNREADABLE),
        )

    def _unreadable_reason(self) -> str:
        """Return the SQL of why a message cannot be read; null where it can."""
        names = [sql_literal(column.name) for column in self.columns if column.required]
        # Spark reads an array of one object as that object, and ignores text after an object. Such
        # text can close the array or the object that is put around it, but not both.
        array, whole = f"concat('[', {TEXT}, ']')", f"concat('{{\"v\":', {TEXT}, '}}')"
        objects = f"try_variant_get(try_parse_json({array}), '$', 'array<map<string,variant>>')"
        is_one_object = (
            f"coalesce(size({objects}), 0) = 1 AND get({objects}, 0) IS NOT NULL "
            f"AND try_parse_json({whole}) IS NOT NULL"
        )
        keys = f"coalesce(json_object_keys({TEXT}), array())"
        missing = f"array_except(array({', '.join(names)}), {keys})" if names else "array()"
        return (
            f"CASE WHEN {TEXT} IS NULL THEN 'message must have a value: got none' "
            f"WHEN NOT ({is_one_object}) THEN 'message must be one JSON object' "
            f"WHEN size({missing}) > 0 THEN concat('message must have the model''s columns: "
            f"missing ', array_join({missing}, ', ')) "
            f"WHEN _dbx_aml_row.{_CORRUPT} IS NOT NULL THEN 'message must have the types of the "
            "model''s columns' END"
        )

    def _column_types(self) -> dict[str, str]:
        own = {column.name: spark_type_of(column) for column in self.columns}
        return {**own, MESSAGE: _MESSAGE_TYPE, TEXT: "string"}

    def _options(self) -> dict[str, str]:
        """Return the options of Spark's Kafka source.

        Source: Spark, "Structured Streaming + Kafka Integration Guide"; Microsoft Learn, "Azure
        Event Hubs for Apache Kafka", 2026-11.
        """
        options = {
            "subscribe": self.topic,
            "kafka.bootstrap.servers": self.bootstrap_servers,
        }
        if self.connection_secret is not None:
            # A secret that was stored from a file ends with a line break, which Kafka refuses.
            login = self._login(resolve_secret(self.connection_secret).strip())
            options["kafka.security.protocol"] = "SASL_SSL"
            options["kafka.sasl.mechanism"] = "PLAIN"
            options["kafka.sasl.jaas.config"] = login
        return options

    def _login(self, secret: str) -> str:
        """Return the line of `sasl.jaas.config`.

        Raises:
            ArgumentError: The secret is of another event hub than the servers, or has no form
                that Kafka knows. The message has no part of it.
        """
        # Databricks ships Kafka's client under another name.
        prefix = "kafkashaded." if running_version() else ""
        endpoint = re.search(r"(?:^|;)\s*Endpoint=sb://([\w.-]+?)/?(?:;|$)", secret)
        if endpoint:
            hosts = {server.rpartition(":")[0] for server in self.bootstrap_servers.split(",")}
            if hosts != {endpoint[1]}:
                raise ArgumentError(
                    "connection_secret must be of the event hub in bootstrap_servers: got one of "
                    f"another host at '{self.connection_secret}'; correct one of the two"
                )
            password = secret.replace("\\", "\\\\").replace('"', '\\"')
            return (
                f'{prefix}{_LOGIN_MODULE} required username="$ConnectionString" '
                f'password="{password}";'
            )
        if re.match(rf"(?:kafkashaded\.)?{re.escape(_LOGIN_MODULE)} required ", secret):
            return prefix + secret.removeprefix("kafkashaded.")
        raise ArgumentError(
            "connection_secret must be a connection string of an event hub, or a line of "
            f"sasl.jaas.config with PlainLoginModule: got neither at '{self.connection_secret}'"
        )
