"""Counts the words of a text: the smallest job that has state.

    raystream run --runner local jobs/word_count.py [FILE]
    python jobs/word_count.py --runner local [FILE]

Every word of the text is printed with its count so far, as `subtask> (word, count)`, so
the last line of a word has its total.  Without FILE a few lines of a poem are counted.
"""

import argparse
import re
from collections.abc import Iterator

from raystream import StreamEnvironment
from raystream.connectors.files import FileSource

POEM = """\
Tyger Tyger, burning bright,
In the forests of the night;
What immortal hand or eye,
Could frame thy fearful symmetry?
In what distant deeps or skies
Burnt the fire of thine eyes?
"""

WORD = re.compile(r"\w+")


def words(line: str) -> Iterator[tuple[str, int]]:
    """Yield each word of a line, in lower case, with the count that it adds."""
    for word in WORD.findall(line.lower()):
        yield word, 1


def main() -> None:
    """Build the job and run it to its end."""
    parser = argparse.ArgumentParser(description="Count the words of a text.")
    parser.add_argument("file", nargs="?", metavar="FILE", help="text to count; a poem if not given")
    parser.add_argument("--runner", choices=("ray", "local"), help="where to run; as configured if not given")
    arguments = parser.parse_args()

    env = StreamEnvironment(runner=arguments.runner)
    if arguments.file:
        lines = env.from_source(FileSource.lines(arguments.file), name="text", uid="text")
    else:
        lines = env.from_collection(POEM.splitlines(), name="poem", uid="text")
    (
        lines.flat_map(words, name="words")
        .key_by(lambda counted: counted[0])
        .sum(1, name="count", uid="count")
        .print(uid="print")
    )
    env.execute("word count")


if __name__ == "__main__":
    main()
