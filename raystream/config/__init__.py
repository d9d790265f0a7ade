"""Configuration of a job: text from files and the command line, typed options inside."""
