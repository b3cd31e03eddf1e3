"""Videos to training data: one source at a time, to a shard of clips and rows of a report."""
