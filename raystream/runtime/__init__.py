"""The execution of one slot and of one job, without Ray."""
