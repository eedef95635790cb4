"""Options that several commands share: of the stores that are read, of the catalogue's, and a job file under them all.

What is given here may hold secrets: no message repeats a value.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar, get_args

import click

from crawler.errors import UsageError
from crawler.fits.policy import Costs, Goal
from crawler.job.job_file import read_job_file
from crawler.stores.urls import S3_SCHEMES, as_url, one_line, scheme_of

Command = TypeVar("Command", bound=Callable[..., Any])

_TEXT = frozenset(
    {
        "account_key",
        "account_name",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "key",
        "password",
        "profile",
        "sas_token",
        "secret",
        "token",
        "username",
    }
)
"""Names whose values are text even where they look like a number: no library takes a number for a key."""


def storage_option(text: str) -> tuple[tuple[str, ...], Any]:
    """Return the names and the value of ``K=V``, where each dot in K goes one table down.

    Raises
    ------
    click.BadParameter
        It is not of that form.
    """
    key, equals, value = text.partition("=")
    names = tuple(name.strip() for name in key.split("."))
    if not equals or not all(names):
        # The text may be a key whose name was forgotten: it is not repeated.
        raise click.BadParameter("K=V is expected, such as anon=true or client_kwargs.region_name=us-west-2")
    return names, read_value(names[-1], value)


def read_value(name: str, text: str) -> Any:
    """Return a value that was typed: a number, truth value, list or table as JSON or TOML have it, or else the text."""
    for parse in (json.loads, _toml_value):
        try:
            value = parse(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, int | float) and name in _TEXT:
            return text
        if value is None or isinstance(value, bool | int | float | str | list | dict):
            return value
    return text


def _toml_value(text: str) -> Any:
    told = tomllib.loads(f"value = {text}")
    if list(told) != ["value"]:
        raise ValueError("several lines")
    return told["value"]


def nested(options: Iterable[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """Return options as tables in tables; what is said last counts.

    Raises
    ------
    UsageError
        One is told as a table and as something else.
    """
    tables: dict[str, Any] = {}
    for names, value in options:
        table = tables
        for name in names[:-1]:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise UsageError(f"the storage option {'.'.join(names)} lies in one that is no table")
        table[names[-1]] = value
    return tables


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return two tables of options as one, where what ``over`` says counts, table by table."""
    both = dict(under)
    for name, value in over.items():
        below = both.get(name)
        both[name] = merged(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return both


Given = tuple[tuple[tuple[str, ...], Any], ...]
"""Options as the command line gives them: names and value of each."""

_OF_READS = {"anon": ("anon",), "requester_pays": ("requester_pays",)}
_OF_SERVER = {"endpoint_url": ("endpoint_url",), "region": ("client_kwargs", "region_name"), "profile": ("profile",)}
"""Flags, with the names of the options of fsspec that they are."""


def storage_flags(command: Command) -> Command:
    """Add the options of the store of files; the command takes them all as ``storage_options``."""

    @wraps(command)
    def gathered(*, storage_options: Given, **others: Any) -> Any:
        flags = [*_taken(_OF_READS, others), *_taken(_OF_SERVER, others)]
        return command(storage_options=nested([*flags, *storage_options]), **others)

    return _with_options(gathered, *_server_options("S3"), _storage_option("the store"))  # type: ignore[return-value]


def catalogue_flags(command: Command) -> Command:
    """Add the options of the store of a catalogue; the command takes them all as ``catalogue_options``."""

    @wraps(command)
    def gathered(*, storage_options: Given, catalogue_options: Given, **others: Any) -> Any:
        flags = [*_taken(_OF_READS, others), *_taken(_OF_SERVER, others)]
        return command(catalogue_options=nested([*flags, *storage_options, *catalogue_options]), **others)

    same = _catalogue_option("As --storage-option: the name that it has among the options of index.")
    options = (*_server_options("Catalogue on S3"), _storage_option("the catalogue's store"), same)
    return _with_options(gathered, *options)  # type: ignore[return-value]


def stores_flags(command: Command) -> Command:
    """Add the options of the stores of files and of the catalogue, which `arguments_of` tells apart.

    The command takes ``storage_options`` and ``catalogue_options``, and as ``shared_options`` those of both.
    """

    @wraps(command)
    def gathered(*, storage_options: Given, catalogue_options: Given, **others: Any) -> Any:
        return command(
            storage_options=nested([*_taken(_OF_READS, others), *storage_options]),
            shared_options=nested(_taken(_OF_SERVER, others)),
            catalogue_options=nested(catalogue_options),
            **others,
        )

    own = _catalogue_option(
        "Any option of the catalogue's store, as --storage-option is of that of ROOTS; may be given again. Counts more "
        "than --endpoint-url, --region and --profile, which are of both where both are on S3."
    )
    options = (*_server_options("S3"), _storage_option("the store of ROOTS"), own)
    return _with_options(gathered, *options)  # type: ignore[return-value]


def _taken(flags: Mapping[str, tuple[str, ...]], given: dict[str, Any]) -> list[tuple[tuple[str, ...], Any]]:
    """Take flags out of what a command is given, and return those that were set as options."""
    values = {names: given.pop(flag) for flag, names in flags.items()}
    return [(names, value) for names, value in values.items() if value is not None]


def _with_options(command: Callable[..., Any], *options: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


def _server_options(where: str) -> tuple[Callable[..., Any], ...]:
    return (
        click.option("--anon", is_flag=True, default=None, help=f"{where}: read a public bucket without credentials."),
        click.option(
            "--requester-pays", is_flag=True, default=None, help=f"{where}: agree to pay for requests and transfer."
        ),
        click.option("--endpoint-url", metavar="URL", help=f"{where}: address of a server other than Amazon's."),
        click.option("--region", metavar="R", help=f"{where}: region of the bucket."),
        click.option("--profile", metavar="P", help=f"{where}: profile of ~/.aws whose credentials are used."),
    )


def _storage_option(where: str) -> Callable[..., Any]:
    return click.option(
        "--storage-option",
        "storage_options",
        type=storage_option,
        metavar="K=V",
        multiple=True,
        help=f"Any option of {where}, as fsspec spells it; may be given again. A dot goes one table down: "
        "client_kwargs.region_name=us-west-2.",
    )


def _catalogue_option(text: str) -> Callable[..., Any]:
    return click.option(
        "--catalogue-option", "catalogue_options", type=storage_option, metavar="K=V", multiple=True, help=text
    )


def arguments_of(told: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a job file under those of the command line.

    ``shared_options`` of the command line are of the roots, and of a catalogue on S3, too, where its own options say
    nothing else; of that catalogue alone where no root is on S3.
    """
    given = dict(over)
    shared = given.pop("shared_options", {})
    arguments = merged(told, given)
    if not shared:
        return arguments
    on_s3 = scheme_of(arguments.get("catalogue") or "") in S3_SCHEMES
    if on_s3:
        arguments["catalogue_options"] = merged(shared, arguments.get("catalogue_options", {}))
    if not on_s3 or any(root.startswith("@") or scheme_of(as_url(root)) == "s3" for root in arguments.get("roots", ())):
        below = merged(told.get("storage_options", {}), shared)
        arguments["storage_options"] = merged(below, given.get("storage_options", {}))
    return arguments


def scope_flags(command: Command) -> Command:
    """Add the options that say how much is read of each file: ``optimize``, ``costs`` and ``max_hdus``."""

    @wraps(command)
    def gathered(
        *, costs: tuple[tuple[str, float], ...], primary_only: bool, max_hdus: int | None, **others: Any
    ) -> Any:
        if primary_only and max_hdus not in (None, 1):
            raise UsageError("--primary-only is --max-hdus 1: give one of them")
        return command(costs=dict(costs), max_hdus=1 if primary_only else max_hdus, **others)

    flags = (
        click.option(
            "--optimize",
            type=click.Choice(get_args(Goal)),
            help="What to spend least of, in reading or jumping short gaps between headers. Default: time.",
        ),
        click.option(
            "--cost",
            "costs",
            type=_cost,
            metavar="K=V",
            multiple=True,
            help=f"A price or time that is known better; may be given again: {', '.join(_COSTS)}.",
        ),
        click.option(
            "--max-hdus", type=click.IntRange(1), metavar="N", help="Walk only the first N HDUs of each file."
        ),
        click.option("--primary-only", is_flag=True, help="Only the primary HDU of each file."),
        click.option(
            "--file-timeout",
            type=click.FloatRange(0, min_open=True),
            metavar="S",
            help="Seconds for one file. Default: 1800.",
        ),
    )
    for option in reversed(flags):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]


_COSTS = [one.name for one in fields(Costs)]


def _cost(text: str) -> tuple[str, float]:
    """Return name and value of a cost.

    Raises
    ------
    click.BadParameter
        There is no such cost, or no such number.
    """
    name, equals, written = text.partition("=")
    if not equals:
        raise click.BadParameter(f"K=V is expected, such as usd_per_gb=0.02, not {one_line(text)}")
    if name not in _COSTS:
        raise click.BadParameter(f"there is no cost {one_line(name)}: there are {', '.join(_COSTS)}")
    try:
        value = float(written)
    except ValueError:
        raise click.BadParameter(f"{name} must be a number, not {one_line(written) or 'nothing'}") from None
    if not 0 <= value < float("inf"):
        raise click.BadParameter(f"{name} must be a number from 0 up, not {one_line(written)}")
    return name, value


def store_flag(command: Command) -> Command:
    """Add the option that picks what reads the files."""
    kinds = click.Choice(["auto", "obstore", "fsspec"])
    return click.option("--store", type=kinds, help="What reads the files. Default: auto.")(command)


_TLS = {"tls_ca_file", "tls_cert", "tls_key"}

OF_CLUSTER = _TLS | {
    "workers",
    "scheduler",
    "cluster_class",
    "cluster_options",
    "cluster_scale",
    "cluster_places",
}
"""Names that a job file gives to what its section [cluster] says."""


def cluster_flags(command: Command) -> Command:
    """Add the options that say on which machines to crawl."""
    flags = (
        click.option("--workers", type=click.IntRange(0), help="Processes; 0 for this one alone. Default: one a core."),
        click.option("--scheduler", metavar="ADDRESS", help="Crawl on a running Dask cluster: tcp://head-node:8786."),
        click.option("--cluster", metavar="FILE", help="Crawl on the cluster that a file describes."),
        click.option("--tls-ca-file", metavar="PEM", help="Who signs for a scheduler at tls://."),
        click.option("--tls-cert", metavar="PEM", help="Our certificate for it."),
        click.option("--tls-key", metavar="PEM", help="And its key."),
    )
    for option in reversed(flags):
        command = option(command)
    return command


def with_job_file(path: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a run: what the command line gives, over what the job file does.

    Parameters
    ----------
    path : str or None
        Of the job file.
    given : mapping
        By name, as `crawler.job.job_file.read_job_file` has them; None or empty for what was not given.

    Returns
    -------
    dict
        With ``roots`` and ``catalogue``, and whatever else was given.

    Raises
    ------
    UsageError
        The job file cannot be read, or something is missing or contradicts itself.
    """
    over = {name: value for name, value in given.items() if value is not None and value not in ((), {})}
    cluster_file = over.pop("cluster", None)
    if sum(("workers" in over, "scheduler" in over, cluster_file is not None)) > 1:
        raise UsageError(
            "--workers starts processes here, --scheduler uses a running cluster, --cluster a file's: give one of them"
        )
    told = read_job_file(path) if path is not None else {}
    if "workers" in over or "scheduler" in over or cluster_file:  # of the ways to run it, the command line says which
        told = {name: value for name, value in told.items() if name not in OF_CLUSTER}
    if cluster_file is not None:
        cluster = read_job_file(cluster_file, kind="cluster file")
        if set(cluster) - OF_CLUSTER or not cluster:
            raise UsageError(
                f"cluster file {cluster_file}: must have the section [cluster], and none but that and those below it"
            )
        told |= cluster
    arguments = arguments_of(told, over)
    if not _TLS.isdisjoint(over) and "scheduler" not in arguments:
        raise UsageError("--tls-ca-file, --tls-cert and --tls-key are of a scheduler: give --scheduler tls://...")
    where = f"in the section [crawl] of {path}" if path is not None else "in a job file (--job FILE)"
    if not arguments.get("roots"):
        raise UsageError(f"there is nothing to index: name ROOTS (folders, files, URLs), or roots {where}")
    if not arguments.get("catalogue"):
        raise UsageError(f"where is the catalogue to be? Give --catalogue FOLDER, or catalogue {where}")
    return arguments
