"""Messages of findings are sentences: a capital, a digit or code at the beginning, a full stop at the end."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "lightning_recipes"
FILES = [path for folder in ("checks", "diagnosis", "recipe") for path in (PACKAGE / folder).glob("*.py")]
NAMES = {"said", "message", "few", "measured"}


def ends(node):
    """Return the first and the last character of a string, None where it is an expression's."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [part.value if isinstance(part, ast.Constant) else None for part in (parts[0], parts[-1])]
    return texts[0] and texts[0][0], texts[1] and texts[1][-1]


def is_text(node):
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def begins_well(first):
    return first is None or first.isupper() or first.isdigit() or first == "`"


@pytest.mark.parametrize("path", sorted(FILES), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_messages_are_sentences(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding" and len(node.args) > 2:
            first, last = ends(node.args[2]) if is_text(node.args[2]) else (None, ".")
            assert begins_well(first), ast.unparse(node)
            assert last == ".", ast.unparse(node)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in NAMES and is_text(node.value):
            assert begins_well(ends(node.value)[0]), ast.unparse(node)
