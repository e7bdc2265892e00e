"""Scoring past one machine: pictures anywhere in, partitioned Parquet out, through Ray tasks and actors."""
