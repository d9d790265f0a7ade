"""State machines without I/O: events in, commands out."""
