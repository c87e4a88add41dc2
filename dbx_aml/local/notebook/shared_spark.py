"""Let the process of a notebook use the Spark engine of the process that starts it.

As on a cluster, notebooks share one engine: tables are the same, temporary views, settings and the
Python process are each notebook's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dbx_aml._common.environment import environment_variables, set_variables
from dbx_aml.local.spark import is_connect

# Environment variables by which pyspark finds an engine.
SparkAddress = dict[str, str]


@contextmanager
def borrow_spark(spark: Any) -> Iterator[SparkAddress | None]:
    """Yield the address of a session's engine; after the block the session works as before."""
    if spark is None:
        yield None
        return
    if is_connect(spark):
        channel = spark.client._builder
        url = channel.url._replace(netloc=channel.endpoint).geturl()
        yield {"SPARK_REMOTE": "sc" + url.removeprefix("http")}
        return
    gateway = spark.sparkContext._gateway
    parameters = gateway.gateway_parameters
    try:
        yield {
            "PYSPARK_GATEWAY_PORT": str(parameters.port),
            "PYSPARK_GATEWAY_SECRET": parameters.auth_token,
        }
    finally:
        sessions = spark._jvm.org.apache.spark.sql.classic.SparkSession
        sessions.setDefaultSession(spark._jsparkSession)
        sessions.setActiveSession(spark._jsparkSession)
        if getattr(gateway, "_callback_server", None) is not None:
            # The JVM calls only one Python process for foreachBatch: the last one that said so.
            from py4j.java_gateway import JavaObject

            server = JavaObject("GATEWAY_SERVER", gateway._gateway_client)
            address = server.getCallbackClient().getAddress()
            server.resetCallbackClient(address, gateway._python_proxy_port)


def attach_spark(address: SparkAddress) -> Any:
    """Return a new session of the engine with this address.

    Args:
        address: Address from `borrow_spark` in another process.
    """
    from pyspark.sql import SparkSession

    if "SPARK_REMOTE" in address:
        # Else pyspark takes this process for the one that has started the server.
        set_variables({**address, "SPARK_LOCAL_REMOTE": None})
        return SparkSession.builder.remote(address["SPARK_REMOTE"]).getOrCreate()
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway

    # Spark's workers run the Python that the context's process names.
    with environment_variables(PYSPARK_PYTHON=sys.executable, **address):
        gateway = launch_gateway()
        jvm = gateway.jvm
        sessions = jvm.org.apache.spark.sql.classic.SparkSession
        session = sessions.getDefaultSession().get().newSession()
        java_context = jvm.JavaSparkContext.fromSparkContext(session.sparkContext())
        conf = SparkConf(_jvm=jvm, _jconf=java_context.getConf())
        return SparkSession(SparkContext(gateway=gateway, jsc=java_context, conf=conf), session)
