"""When the jobs of tests take checkpoints."""

ON_REQUEST = {"execution_checkpointing_interval": "1h", "execution_checkpointing_min_pause": "1h"}
"""Options of a job that takes none but those it is asked for; with no pause the first comes at any time."""
