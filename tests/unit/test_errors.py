"""Every error of the package: one line, and whole after a trip between processes."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator

import pytest

from crawler import errors
from crawler.errors import CrawlerError


def below(kind: type[CrawlerError]) -> Iterator[type[CrawlerError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from below(child)


ALL = sorted(set(below(CrawlerError)), key=lambda kind: kind.__name__)


def made(kind: type[CrawlerError]) -> CrawlerError:
    """Make one with an argument of the right type for each parameter."""
    if kind.__init__ is CrawlerError.__init__:
        return kind("what, where and what to do")
    parameters = list(inspect.signature(kind).parameters.values())
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters), "keyword-only arguments do not unpickle"
    return kind(*[2880 if "int" in str(p.annotation) else f"some {p.name}" for p in parameters])


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_pickles(kind: type[CrawlerError]) -> None:
    error = made(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert copy.args == error.args
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_says_everything_in_one_line(kind: type[CrawlerError]) -> None:
    said = str(made(kind))
    assert said
    assert said.isprintable()


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_is_drawn_in_the_tree(kind: type[CrawlerError]) -> None:
    assert errors.__doc__ is not None
    if kind.__module__ == errors.__name__:
        assert f" {kind.__name__} " in errors.__doc__.replace("\n", " ")
