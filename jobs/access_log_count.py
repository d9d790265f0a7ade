"""Counts the hits of every path of a web server's access log.

    raystream run -p 2 jobs/access_log_count.py access.log --out hits/

Reads JSON lines (the path is in `url` or `path`) and the combined log format of NGINX and Apache;
which of the two is found out line by line.  The path is the request target as it stands, query
included.  For each request a line `[path, n]` appears in the output directory, n being the number of
requests for this path so far.  A line without a path goes, with its file and byte offset, to the
directory `rejected` inside the output directory, and the job goes on.

Without a log the job makes one itself.  Checkpoints and the runner are a matter of configuration.
"""

import argparse
import itertools
import random
import re
import sys
from pathlib import Path

import msgspec

from raystream import KeyedProcessFunction, ProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.files import FileSink, FileSource

# ---- parsing ----------------------------------------------------------------

COMBINED = re.compile(
    rb"\S+ \S+ [^[]*\[[^]]+\] "  # client, identity, user and time
    rb'"[A-Za-z-]+ ((?! )(?:[^"\\ ]++|\\.| (?!HTTP/))+)(?: HTTP/[\d.]+)?" '  # quotes inside are escaped
    rb"\d{3} (?:\d+|-)(?: |$)"  # status and size; what follows has no influence on the path
)
REJECTED = "rejected"
SEED = 1


class JsonRequest(msgspec.Struct):
    """What matters of a request in JSON."""

    url: str | None = None
    path: str | None = None


JSON_DECODER = msgspec.json.Decoder(JsonRequest)


def request_target(line: bytes) -> str | None:
    """Return the path of a request, or None when the line has none.

    Example:
        >>> request_target(b'::1 - - [17/May/2015:10:05:03 +0000] "GET /a?b=1 HTTP/1.1" 200 9 "-" "curl"')
        '/a?b=1'
    """
    if line.lstrip()[:1] == b"{":
        try:
            request = JSON_DECODER.decode(line)
        except ValueError:  # Neither JSON nor UTF-8, or the path is not a text.
            return None
        return request.url or request.path
    if match := COMBINED.match(line):
        # Servers write bytes that are not UTF-8 as they come, or as \xff.
        return match[1].decode(errors="backslashreplace")
    return None


class ParseRequest(ProcessFunction):
    """Makes paths out of lines; lines without a path go to the side output."""

    def process_element(self, value, ctx):
        file, offset, line = value
        if path := request_target(line):
            return (path,)
        text = line.decode(errors="backslashreplace")
        ctx.output(REJECTED, {"file": file, "offset": offset, "line": text})
        return ()


# ---- counting ---------------------------------------------------------------


class CountHits(KeyedProcessFunction):
    """Emits the path and its number of hits so far, for each hit."""

    def open(self, ctx):
        self.hits = ctx.get_state(ValueStateDescriptor("hits", int, default=0))

    def process_element(self, value, ctx):
        hits = self.hits.value() + 1
        self.hits.update(hits)
        return ((ctx.current_key, hits),)


def main() -> None:
    """Build the job from the command line's arguments and run it."""
    parser = argparse.ArgumentParser(description="Count the hits of every path of an access log.")
    parser.add_argument("input", nargs="?", help="log file, directory or pattern; made up when missing")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="directory for the counts")
    parser.add_argument("--watch", metavar="TIME", help="never end; look for new lines this often, as in 1s")
    parser.add_argument("--lines", type=int, default=1_000_000, help="length of a made-up log")
    options = parser.parse_args()

    env = StreamEnvironment()
    log = options.input or made_up_log(options.out, options.lines)
    source = FileSource.lines(log, encoding=None, with_position=True, watch=options.watch)
    lines = env.from_source(source, name="access log", uid="source")
    requests = lines.process(ParseRequest(), name="parse", uid="parse")
    (
        requests.key_by(lambda path: path)
        .process(CountHits(), name="count hits", uid="count-hits")
        .sink_to(FileSink.json_lines(options.out), name="hits", uid="sink")
    )
    requests.get_side_output(REJECTED).sink_to(
        FileSink.json_lines(options.out / "rejected"), name="rejected", uid="rejected-sink"
    )
    env.execute("access log count")


# ---- a log to count ---------------------------------------------------------


def made_up_log(out: Path, lines: int) -> Path:
    """Return a log beside the output directory, half of it JSON and always the same."""
    log = out.with_name(f"access-{lines}-lines.log")
    if log.exists():
        return log
    rng = random.Random(SEED)
    paths = [f"/items/{n}" if n % 3 else f"/search?q=item+{n}&page=1" for n in range(10_000)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(paths) + 1)))
    log.parent.mkdir(parents=True, exist_ok=True)
    unfinished = log.with_suffix(".unfinished")
    with unfinished.open("w") as file:
        for start in range(0, lines, 100_000):
            if sys.stderr.isatty():
                print(f"making {log}: {start:,} of {lines:,} lines", end="\r", file=sys.stderr)
            numbers = range(start, min(start + 100_000, lines))
            file.writelines(map(log_line, numbers, rng.choices(paths, cum_weights=weights, k=len(numbers))))
    unfinished.rename(log)  # So that a log that exists is whole.
    overwritten = " " * 20 if sys.stderr.isatty() else ""
    print(f"made {log}: {lines:,} lines{overwritten}", file=sys.stderr)
    return log


def log_line(number: int, path: str) -> str:
    """Return one request, by turns in the combined format and in JSON."""
    minutes, seconds = divmod(number, 60)
    client, time = f"10.0.{number % 256}.7", f"{minutes // 60 % 24:02}:{minutes % 60:02}:{seconds:02}"
    if number % 2:
        return f'{{"time": "2026-05-17T{time}Z", "client": "{client}", "url": "{path}", "status": 200}}\n'
    return f'{client} - - [17/May/2026:{time} +0000] "GET {path} HTTP/1.1" 200 4523 "-" "Mozilla/5.0"\n'


if __name__ == "__main__":
    main()
