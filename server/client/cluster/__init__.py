"""Answer a batch on a Ray cluster: blocks of tasks in, partitions of a Parquet data set out."""
