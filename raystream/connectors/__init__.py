"""Sources and sinks: files, generated records, collections and the console."""
