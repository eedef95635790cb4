"""Clusters of any Dask class, described by a job file: started for one run, and stopped at its end."""

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
"""Names for pip of packages that start clusters, where the name is not the Python name with hyphens."""

_LOGGERS = ("tornado.application", "asyncio", "distributed.deploy.adaptive_core", "distributed.deploy.spec")
"""Loggers that log a traceback when a worker cannot be requested, while the cluster continues with the others."""

_LONGEST = 300
"""Maximum length of a message, in characters."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A cluster that a job file describes.

    Attributes
    ----------
    kind : str
        Import path of its class, such as ``dask_jobqueue.SLURMCluster``.
    options : mapping
        Keyword arguments of the class. Tables and lists among them may hold secrets: no message repeats their strings.
    scale : mapping
        Size of the cluster. For an adaptive size, the keyword arguments of the method ``adapt``, such as ``minimum``
        and ``maximum``. For a fixed size, those of the method ``scale``, such as ``n`` or ``jobs``.
    places : mapping of str to str
        File and line of ``class``, ``options`` and ``scale`` in the job file, for messages.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    scale: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def adaptive(self) -> bool:
        """Whether the number of workers follows the number of tasks."""
        return any(name.startswith(("minimum", "maximum")) for name in self.scale)

    def resolve(self) -> Any:
        """Import and check the class.

        Raises
        ------
        UsageError
            The class does not exist, its package is not installed, it does not accept the options or the scale, or it
            needs a program that this machine does not have.
        """
        made = self._import_class()
        if not (inspect.isclass(made) and all(callable(getattr(made, name, None)) for name in ("scale", "close"))):
            raise self.wrong("class", f"{self.kind} is not a Dask cluster class")
        try:
            inspect.signature(made).bind(**self.options)
        except TypeError as error:
            raise self.wrong("options", f"{self.kind}: {error}") from None
        self._check_scale(made)
        submit = getattr(getattr(made, "job_cls", None), "submit_command", None)  # of dask-jobqueue
        if submit and shutil.which(program := shlex.split(submit)[0]) is None:
            reason = f"{self.kind} needs the program {program}, which is not on the PATH: run crawler on a login node"
            raise self.wrong("class", reason)
        return made

    def _check_scale(self, made: Any) -> None:
        if not self.scale:
            return
        resize: Any = getattr(made, "adapt" if self.adaptive else "scale", None)
        try:
            inspect.signature(resize).bind(None, **self.scale)
        except TypeError as error:
            raise self.wrong("scale", f"{self.kind}: {error}") from None
        counts = [
            value for name, value in self.scale.items() if not isinstance(value, str)
        ]  # "100 GiB" is not a number of workers
        low, high = self.scale.get("minimum", 0), self.scale.get("maximum", float("inf"))
        if (
            not all(type(count) in (int, float) and count >= 0 for count in counts)
            or not low <= high
            or not any(counts)
        ):
            raise self.wrong("scale", "sizes must be numbers, not all of them 0, and minimum must not exceed maximum")

    def _import_class(self) -> Any:
        module, _, name = self.kind.rpartition(".")
        package = module.partition(".")[0]
        try:
            with _keep_signal_handlers():
                return getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            missing = (error.name or package).partition(".")[0]
            if missing == package and error.name != package:
                raise self.wrong("class", f"cluster class {self.kind} not found: no module {error.name}") from None
            wanted = _PACKAGES.get(package, package.replace("_", "-"))
            needs = "" if missing == package else f" needs {missing}, which"
            raise self.wrong("class", f"{package}{needs} is not installed: pip install '{wanted}'") from None
        except AttributeError:
            raise self.wrong("class", f"module {module} has no cluster class {name}") from None
        except ValueError:
            raise self.wrong("class", f"{self.kind} is not an import path: dask_jobqueue.SLURMCluster is one") from None
        except Exception as error:  # importing a library runs its code, which can raise anything
            raise self.wrong("class", f"{package} cannot be imported: {error}") from None

    def wrong(self, what: str, reason: str) -> UsageError:
        """Return an error that names the place of ``class``, ``options`` or ``scale`` in the job file."""
        return UsageError(self._message(what, reason))

    def start_error(self, error: BaseException) -> ClusterError:
        """Return the error for a cluster that cannot be started."""
        text = self._redact(_short_text(error))
        what = "options" if "keyword argument" in text else "class"
        return ClusterError(self._message(what, f"{self.kind} cannot be started: {text}"))

    def _message(self, what: str, reason: str) -> str:
        place = self.places.get(what) or self.places.get("class")
        return one_line(f"{place}: {reason}" if place else reason, limit=_LONGEST)

    def _redact(self, text: str) -> str:
        """Remove the strings in tables and lists of the options from a library's message: they may be secrets."""
        for value in sorted(_nested_strings(self.options), key=len, reverse=True):
            text = text.replace(value, "...")
        return text


def _nested_strings(options: object, *, top: bool = True) -> Iterator[str]:
    """Yield the strings in tables and lists of options."""
    if isinstance(options, str):
        if not top and options:
            yield options
    elif isinstance(options, Mapping | list):
        inside = options.values() if isinstance(options, Mapping) else options
        for value in inside:
            yield from _nested_strings(value, top=top and isinstance(value, str))


@contextmanager
def planned_client(plan: ClusterPlan, tell: Callable[[str], None]) -> Iterator[Client]:
    """Start the cluster of a plan, and stop it at the end, also after Ctrl-C or SIGTERM during the start.

    Text that the cluster's library prints goes to standard error.

    Parameters
    ----------
    plan : ClusterPlan
    tell : callable
        Called with one line, from another thread, if a worker cannot be requested and the cluster continues with the
        others.

    Raises
    ------
    UsageError
        The plan has an error; see `ClusterPlan.resolve`.
    ClusterError
        The cluster cannot be started.
    """
    made = plan.resolve()
    options = dict(plan.options)
    with ExitStack() as stack:
        log = stack.enter_context(_filter_tracebacks())
        # At level INFO, this logger also logs the end of an adaptive cluster.
        logging.getLogger("distributed.deploy.adaptive").setLevel(logging.WARNING)
        if issubclass(made, SpecCluster):  # its scheduler, and perhaps its workers, run in this process
            options.setdefault("loop", stack.enter_context(loop_deaf_to_ctrl_c()))
        stack.enter_context(redirect_stdout(sys.stderr))
        cluster = stack.enter_context(started(made))
        with _sigterm_as_interrupt(), warnings.catch_warnings():
            # If another process uses the port of the dashboard, Dask takes the next port. The user sees the address.
            warnings.filterwarnings("ignore", r"(?s).*Port \d+ is already in use", UserWarning)
            try:
                cluster.__init__(**options)
                _resize(cluster, plan)
                client = stack.enter_context(client_of(cluster))
            except Exception as error:  # any library may raise anything: the user gets one line
                raise plan.start_error(error) from None
        log.tell = tell
        yield client


def _resize(cluster: Any, plan: ClusterPlan) -> None:
    """Request workers. One is requested at once even for an adaptive size, so that a refusing queue is an error."""
    if plan.adaptive and isinstance(cluster, SpecCluster) and not cluster.worker_spec:
        _scale(cluster, {"n": max(1, int(plan.scale.get("minimum", 0)))})
    if plan.adaptive:
        cluster.adapt(**plan.scale)
    elif plan.scale:
        _scale(cluster, plan.scale)


def _scale(cluster: Any, size: Mapping[str, Any]) -> None:
    """Request workers, and wait until the requests have been sent."""
    if not isinstance(cluster, SpecCluster):
        cluster.scale(**size)
        return

    async def scale() -> None:
        cluster.scale(**size)  # sends the requests later, in a task whose errors are lost
        # If Ctrl-C cancelled the requests half way, Dask would forget those workers and never stop them.
        await asyncio.shield(cluster._correct_state())

    cluster.sync(scale)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C during the start. Otherwise the machines started so far would go on, and cost."""

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
def _keep_signal_handlers() -> Iterator[None]:
    """Restore the handlers that an import replaces: with that of dask-jobqueue 0.9, Ctrl-C exits with code 0."""
    if threading.current_thread() is not threading.main_thread():  # other threads cannot set handlers
        yield
        return
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class _TracebackFilter(logging.Filter):
    """Drops log records with a traceback.

    Attributes
    ----------
    tell : callable or None
        Called with one line for each dropped record. None during the start, when the error itself is raised.
    """

    tell: Callable[[str], None] | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a record with a traceback, after `tell`; True for all others."""
        if not (record.exc_info and record.exc_info[1]):
            return True
        if self.tell is not None:
            self.tell(f"cluster: {one_line(_short_text(record.exc_info[1]), limit=_LONGEST)}")
        return False


def _short_text(error: BaseException) -> str:
    """Return the text of an error in one line.

    If dask-jobqueue ran a program, that is the program's standard error, without the advice of dask-jobqueue.
    """
    text = str(error).strip() or type(error).__name__
    text = text.rpartition("stderr:\n")[2].strip() or text
    return " ".join(text.partition(". Very likely")[0].split())


@contextmanager
def _filter_tracebacks() -> Iterator[_TracebackFilter]:
    """Drop the tracebacks of `_LOGGERS`."""
    added = _TracebackFilter()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(added)
    try:
        yield added
    finally:
        for logger in loggers:
            logger.removeFilter(added)
