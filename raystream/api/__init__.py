"""What users import; the package root re-exports it."""
