"""Looks up a file, has a child process look it up, and looks it up again; for tests of stores.

    python child_process.py fork|spawn URL

It is a program of its own: a fork of the tests' process would inherit Ray's handlers of signals, and
take Ray and the tests with it when it ends.
"""

import multiprocessing
import sys

from raystream.storage.stores import open_file_system


def exists(url: str) -> bool:
    """Return whether there is such a file."""
    return open_file_system(url).exists(url)


if __name__ == "__main__":
    method, url = sys.argv[1:]
    before = exists(url)
    with multiprocessing.get_context(method).Pool(1) as pool:
        inside = pool.apply_async(exists, (url,)).get(60)
    print(before, inside, exists(url))
