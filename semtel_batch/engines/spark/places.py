"""What is said of data that Spark can't reach: which package is missing, where one is."""

from __future__ import annotations

from collections.abc import Collection

DELTA = "io.delta:delta-spark_4.x_2.13"

_CONNECTORS = {
    "s3a": "org.apache.hadoop:hadoop-aws",
    "abfs": "org.apache.hadoop:hadoop-azure",
    "abfss": "org.apache.hadoop:hadoop-azure",
    "wasbs": "org.apache.hadoop:hadoop-azure",
    "gs": "com.google.cloud.bigdataoss:gcs-connector",
}
_RENAMED = {"s3": "s3a", "s3n": "s3a", "az": "abfss", "wasb": "wasbs", "gcs": "gs"}
_HOW = "name it to Spark with its version (spark.jars.packages in spark-defaults.conf, or a session of your own)"

_NO_FORMAT = "org.apache.spark.SparkClassNotFoundException"
_NO_FILE_SYSTEM = frozenset({"java.lang.ClassNotFoundException", "org.apache.hadoop.fs.UnsupportedFileSystemException"})


def unreadable(source: str, causes: Collection[str], reason: str) -> str:
    """Why `source` can't be read, and what to do; `causes` are the names of Java's exceptions, `reason` its words."""
    if _NO_FORMAT in causes:
        return f"'{source}' is a Delta table, and Spark has no package for it: {_HOW}, such as {DELTA}."
    scheme, _, rest = source.partition("://")
    if not _NO_FILE_SYSTEM & set(causes):
        return f"Spark can't read '{source}' ({reason}); check the path."
    if scheme in _RENAMED:
        return f"Spark knows no '{scheme}://'; write '{_RENAMED[scheme]}://{rest}'."
    package = _CONNECTORS.get(scheme)
    if package is None:
        return (
            f"Spark has no connector for '{scheme}://' in '{source}'; check the address, or give Spark its connector."
        )
    return f"Spark has no connector for '{source}': {_HOW}, such as {package}."
