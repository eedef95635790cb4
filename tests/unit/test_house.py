"""Rules of the code base that the linters do not know, checked on the syntax trees of all modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LONGEST_MODULE = 400
"""Lines of a module of `crawler`, at most."""

LONGEST_FUNCTION = 60
"""Lines of a function of `crawler`, at most, its docstring aside."""

MODULES = sorted(path.relative_to(REPOSITORY) for path in (REPOSITORY / "crawler").rglob("*.py"))
TESTS = sorted(path.relative_to(REPOSITORY) for path in (REPOSITORY / "tests").rglob("*.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef


def tree_of(path: Path) -> ast.Module:
    return ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))


def private_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in {"crawler", "tests"}:
            for name in node.names:
                if name.name.startswith("_") and not name.name.startswith("__"):
                    yield f"{path}:{node.lineno} imports {name.name} of {node.module}"


def length_of(function: Function) -> int:
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


@pytest.mark.parametrize("paths", [MODULES, TESTS], ids=["crawler", "tests"])
def test_no_module_imports_a_private_name_of_another(paths: list[Path]) -> None:
    assert [found for path in paths for found in private_imports(path)] == []


def test_no_module_is_longer_than_the_limit() -> None:
    lengths = {str(path): len((REPOSITORY / path).read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_MODULE} == {}


def test_no_function_is_longer_than_the_limit() -> None:
    lengths = {
        f"{path}:{node.lineno} {node.name}": length_of(node)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, Function)
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION} == {}
