"""The command line: `raystream run`, `list`, `savepoint` and the rest.

The only part of raystream that configures logging, installs signal handlers and writes to
the standard streams.  Results go to standard output and nothing else does; progress, logs
and errors go to standard error.

Exit codes: 0 done; 1 the job failed; 2 wrong usage, configuration or path; 3 no such job
or cluster; 128 + n when signal n ended the command.
"""
