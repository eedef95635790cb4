"""The catalogue: three tables of Parquet files on one log; writing, committing, merging, reading."""
