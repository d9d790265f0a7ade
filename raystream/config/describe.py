"""What `raystream config` prints about every key, taken from the typed options.

The meaning of a key is the text under its field in `raystream.config.options`; Python
drops such texts when it compiles, so they are read from the module's source, once.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from raystream.config import options
from raystream.config.schema import Option, Section, own_options, subsections


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionDoc:
    """One key as `raystream config` shows it."""

    key: str
    type: str
    default: str
    meaning: str
    aliases: tuple[str, ...]


def describe_options() -> list[OptionDoc]:
    """Return every configuration key, sorted by name."""
    texts = _field_texts()
    described = (_document(declared, texts[field]) for field, declared in _declared(options.JobConfig))
    return sorted(described, key=lambda doc: doc.key)


def _document(declared: Option, meaning: str) -> OptionDoc:
    return OptionDoc(
        key=declared.key,
        type=declared.kind.name,
        default=declared.default_text,
        meaning=meaning,
        aliases=declared.aliases,
    )


def _declared(section: type[Section]) -> Iterator[tuple[tuple[str, str], Option]]:
    for field_name, declared in own_options(section):
        yield (section.__name__, field_name), declared
    for _, inner in subsections(section):
        yield from _declared(inner)


def _field_texts() -> dict[tuple[str, str], str]:
    texts: dict[tuple[str, str], str] = {}
    for node in ast.parse(inspect.getsource(options)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, text in zip(node.body, node.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(ast.Name(name)), ast.Expr(ast.Constant(str(meaning))):
                    texts[node.name, name] = " ".join(meaning.split())
    return texts
