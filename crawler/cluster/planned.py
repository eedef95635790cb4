"""Clusters of any class, as a job file describes them: started for the run, and stopped at its end."""

from __future__ import annotations

import asyncio
import inspect
import logging
import shlex
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

from distributed import Client, SpecCluster

from crawler.cluster.clients import client_of, loop_deaf_to_ctrl_c, started
from crawler.errors import ClusterError, UsageError
from crawler.stores.urls import one_line

_PACKAGES = {"dask_cloudprovider": "dask-cloudprovider[aws]"}
"""What pip calls the packages that start clusters, where it is not as Python does, with hyphens."""

_LOGGERS = ("tornado.application", "asyncio", "distributed.deploy.adaptive_core", "distributed.deploy.spec")
"""Who says with a traceback that a worker could not be asked for, while the cluster goes on with others."""

_LONGEST = 300


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A cluster that a job file describes.

    Attributes
    ----------
    kind : str
        Import path of its class, such as ``dask_jobqueue.SLURMCluster``.
    options : mapping
        Its keyword arguments. May hold secrets, in tables and lists: what those hold is not repeated in any message.
    scale : mapping
        Keyword arguments of the class's ``adapt``, such as ``minimum`` and ``maximum``, for a size that follows the
        work; or else of its ``scale``, such as ``n`` or ``jobs``, for one that stays.
    places : mapping of str to str
        Where ``class``, ``options`` and ``scale`` are told, for messages: file and line.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    scale: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def adaptive(self) -> bool:
        """Whether its size follows the work."""
        return any(name.startswith(("minimum", "maximum")) for name in self.scale)

    def found(self) -> Any:
        """Return the class.

        Raises
        ------
        UsageError
            There is none, its package is not installed, it does not take what it is given, or needs a program that is
            not here.
        """
        made = self._imported()
        if not (inspect.isclass(made) and all(callable(getattr(made, name, None)) for name in ("scale", "close"))):
            raise self.wrong("class", f"{self.kind} is no class of Dask clusters")
        try:
            inspect.signature(made).bind(**self.options)
        except TypeError as error:
            raise self.wrong("options", f"{self.kind}: {error}") from None
        self._check_scale(made)
        submit = getattr(getattr(made, "job_cls", None), "submit_command", None)  # of dask-jobqueue
        if submit and shutil.which(program := shlex.split(submit)[0]) is None:
            raise self.wrong("class", f"{self.kind} runs {program}, which is not on the PATH: begin on a login node")
        return made

    def _check_scale(self, made: Any) -> None:
        if not self.scale:
            return
        resize: Any = getattr(made, "adapt" if self.adaptive else "scale", None)
        try:
            inspect.signature(resize).bind(None, **self.scale)
        except TypeError as error:
            raise self.wrong("scale", f"{self.kind}: {error}") from None
        counts = [value for name, value in self.scale.items() if not isinstance(value, str)]  # "100 GiB" is no count
        low, high = self.scale.get("minimum", 0), self.scale.get("maximum", float("inf"))
        if (
            not all(type(count) in (int, float) and count >= 0 for count in counts)
            or not low <= high
            or not any(counts)
        ):
            raise self.wrong("scale", "sizes must be numbers, minimum not above maximum, and not all of them 0")

    def _imported(self) -> Any:
        module, _, name = self.kind.rpartition(".")
        package = module.partition(".")[0]
        try:
            with _signals_kept():
                return getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            missing = (error.name or package).partition(".")[0]
            if missing == package and error.name != package:
                raise self.wrong("class", f"there is no cluster class {self.kind}: no module {error.name}") from None
            wanted = _PACKAGES.get(package, package.replace("_", "-"))
            lacks = "is not installed" if missing == package else f"lacks {missing}"
            raise self.wrong("class", f"{package} {lacks}: pip install '{wanted}'") from None
        except AttributeError:
            raise self.wrong("class", f"there is no cluster class {name} in {module}") from None
        except ValueError:
            raise self.wrong("class", f"{self.kind} is no import path, such as dask_jobqueue.SLURMCluster") from None
        except Exception as error:  # whatever a library does as it is loaded
            raise self.wrong("class", f"{package} cannot be loaded: {error}") from None

    def wrong(self, what: str, reason: str) -> UsageError:
        """Return an error about what is told in one place."""
        return UsageError(self._said(what, reason))

    def failed(self, error: BaseException) -> ClusterError:
        """Return an error about a cluster that could not be started."""
        text = self._discreet(_said_last(error))
        what = "options" if "keyword argument" in text else "class"
        return ClusterError(self._said(what, f"{self.kind} cannot be started: {text}"))

    def _said(self, what: str, reason: str) -> str:
        place = self.places.get(what) or self.places.get("class")
        return one_line(f"{place}: {reason}" if place else reason, limit=_LONGEST)

    def _discreet(self, text: str) -> str:
        """Return a library's message without what stands in tables and lists of the options: environments, say."""
        for value in sorted(_inner(self.options), key=len, reverse=True):
            text = text.replace(value, "...")
        return text


def _inner(options: object, *, top: bool = True) -> Iterator[str]:
    """Yield the strings that stand in tables and lists of options."""
    if isinstance(options, str):
        if not top and options:
            yield options
    elif isinstance(options, Mapping | list):
        inside = options.values() if isinstance(options, Mapping) else options
        for value in inside:
            yield from _inner(value, top=top and isinstance(value, str))


@contextmanager
def planned_client(plan: ClusterPlan, tell: Callable[[str], None]) -> Iterator[Client]:
    """Start the cluster of a plan, and stop it at the end, whatever ends it: Ctrl-C and SIGTERM in its beginning, too.

    What it prints meanwhile goes to standard error.

    Parameters
    ----------
    plan : ClusterPlan
    tell : callable
        Given a line, from another thread, where a worker could not be asked for while the cluster goes on with others.

    Raises
    ------
    UsageError
        The plan makes no sense.
    ClusterError
        The cluster cannot be started.
    """
    made = plan.found()
    options = dict(plan.options)
    with ExitStack() as stack:
        log = stack.enter_context(_in_one_line())
        logging.getLogger("distributed.deploy.adaptive").setLevel(
            logging.WARNING
        )  # says where it ends, even as we exit
        if issubclass(made, SpecCluster):  # runs its scheduler here, and maybe more
            options.setdefault("loop", stack.enter_context(loop_deaf_to_ctrl_c()))
        stack.enter_context(redirect_stdout(sys.stderr))
        cluster = stack.enter_context(started(made))
        with _interrupted_by_sigterm(), warnings.catch_warnings():
            # Another has the dashboard's port: it takes the next, and its link is shown.
            warnings.filterwarnings("ignore", r"(?s).*Port \d+ is already in use", UserWarning)
            try:
                cluster.__init__(**options)
                _resize(cluster, plan)
                client = stack.enter_context(client_of(cluster))
            except Exception as error:  # of any library, of whatever kind: it is shown, and nothing is begun
                raise plan.failed(error) from None
        log.tell = tell
        yield client


def _resize(cluster: Any, plan: ClusterPlan) -> None:
    """Ask for workers, the first of them at once, so that a queue that refuses them is told of."""
    if plan.adaptive and isinstance(cluster, SpecCluster) and not cluster.worker_spec:
        _scale(cluster, {"n": max(1, int(plan.scale.get("minimum", 0)))})
    if plan.adaptive:
        cluster.adapt(**plan.scale)
    elif plan.scale:
        _scale(cluster, plan.scale)


def _scale(cluster: Any, size: Mapping[str, Any]) -> None:
    """Ask for workers, and wait until they are asked for."""
    if not isinstance(cluster, SpecCluster):
        cluster.scale(**size)
        return

    async def scale() -> None:
        cluster.scale(**size)  # which has that done later, where nobody sees what comes of it
        # Ctrl-C would have them forgotten, in the middle of being asked for, and not ended with the others.
        await asyncio.shield(cluster._correct_state())

    cluster.sync(scale)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end a start as Ctrl-C does: what was started would stay, and cost."""

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Undo what a library does to Ctrl-C as it is loaded: dask-jobqueue 0.9 has it end us, with exit code 0."""
    if threading.current_thread() is not threading.main_thread():  # where none can be set
        yield
        return
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class _InOneLine(logging.Filter):
    """Keeps back what a log would say with a traceback.

    Attributes
    ----------
    tell : callable or None
        Given it in a line: once a cluster has begun, before which it is an error that is raised.
    """

    tell: Callable[[str], None] | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell of a record that has a traceback; leave all others."""
        if not (record.exc_info and record.exc_info[1]):
            return True
        if self.tell is not None:
            self.tell(f"cluster: {one_line(_said_last(record.exc_info[1]), limit=_LONGEST)}")
        return False


def _said_last(error: BaseException) -> str:
    """Return an error as one line: of a program that dask-jobqueue ran, what it said itself; its own without advice."""
    text = str(error).strip() or type(error).__name__
    text = text.rpartition("stderr:\n")[2].strip() or text
    return " ".join(text.partition(". Very likely")[0].split())


@contextmanager
def _in_one_line() -> Iterator[_InOneLine]:
    """Keep back tracebacks of workers that could not be asked for."""
    told = _InOneLine()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(told)
    try:
        yield told
    finally:
        for logger in loggers:
            logger.removeFilter(told)
