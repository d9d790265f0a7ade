"""Durable files: stores, snapshots, the job log."""
