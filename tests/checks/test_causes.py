"""The vocabulary of causes, its page, and who uses it. To write the page anew:

python -m tests.checks.test_causes
"""

import ast
import re
from pathlib import Path

from lightning_recipes.checks import CAUSES, causes

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/causes.md"
INTRODUCTION = """\
# Causes

What may be wrong with a run, and what to do about it. A [check](checks.md) names causes by these slugs, the
likeliest first, and its advice is that of the first one. `from lightning_recipes.checks import CAUSES` has
the same as a dictionary.
"""


def groups():
    """Return the slugs below each comment of the source, in its order."""
    found = {}
    for line in Path(causes.__file__).read_text().splitlines():
        if comment := re.match(r"    # (.+)", line):
            slugs = found.setdefault(comment[1], [])
        elif entry := re.match(r'    "([a-z-]+)":', line):
            slugs.append(entry[1])
    return found


def page():
    parts = [INTRODUCTION]
    for group, slugs in groups().items():
        rows = [f"| `{slug}` | {CAUSES[slug]} |" for slug in slugs]
        parts.append(
            "\n".join([f"## {group.capitalize()}\n", "| cause | what to do |", "|---|---|", *rows, ""])
        )
    return "\n".join(parts)


def literals(path):
    """Return the strings of a file that are no docstrings."""
    tree = ast.parse(path.read_text())
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    first = [node.body[0] for node in ast.walk(tree) if isinstance(node, scopes) and node.body]
    docstrings = {id(statement.value) for statement in first if isinstance(statement, ast.Expr)}
    strings = (
        node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings
    )
    return {node.value for node in strings if isinstance(node.value, str)}


def test_the_page_lists_the_vocabulary():
    assert [slug for slugs in groups().values() for slug in slugs] == list(CAUSES)
    assert PAGE.read_text() == page(), "run `python -m tests.checks.test_causes`"


def test_every_cause_is_named_by_a_check_or_a_pattern():
    files = [
        path
        for folder in ("checks", "diagnosis")
        for path in (ROOT / "lightning_recipes" / folder).glob("*.py")
    ]
    used = set().union(*(literals(path) for path in files if path.name != "causes.py"))
    assert not set(CAUSES) - used


def test_advice_is_a_sentence():
    for slug, advice in CAUSES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", slug)
        assert re.fullmatch(r"[A-Z`].*\.", advice), slug


if __name__ == "__main__":
    PAGE.write_text(page())
