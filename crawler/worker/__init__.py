"""What a worker does: walk the files of one partition, and write their rows."""
