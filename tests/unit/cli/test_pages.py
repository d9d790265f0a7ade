"""The commands that a page shows are commands that exist, with options that they have."""

import re
import shlex
from pathlib import Path

import pytest

from raystream.cli.main import commands

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("README.md", "docs/submitting.md")


def commands_of(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = "\n".join(re.findall(r"^```(?:console|bash)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    return re.findall(r"^(?:\$ )?(raystream .*)$", shown, re.MULTILINE)


@pytest.mark.parametrize("line", [line for page in PAGES for line in commands_of(page)])
def test_command_is_understood(line):
    _, name, *arguments = shlex.split(line, comments=True)

    assert commands.commands[name].make_context(name, arguments)
