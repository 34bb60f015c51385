"""Many machines: the same job, its files read and asked about by Spark's executors. Needs the extra `spark`."""
