"""The examples in ``config``: job files that are read, and schedules that call the command line as it is."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from crawler.cli import commands
from crawler.cli.options import with_job_file
from crawler.job_file import read_job_file
from crawler.stores import as_url, open_store

CONFIG = Path(__file__).parents[2] / "config"
JOBS = sorted((CONFIG / "jobs").glob("*.toml"))
LOCAL = CONFIG / "jobs" / "local.toml"
SERVICE, TIMER, CRON = (CONFIG / "schedules" / f"crawler.{kind}" for kind in ("service", "timer", "cron"))
_CRON_LINE = re.compile(r"(?P<when>(?:\S+\s+){5})(?P<user>\S+)\s+(?P<command>.+)")


def unit(path: Path) -> configparser.ConfigParser:
    """Read a systemd unit, of which ours are no more than INI files."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


def cron_lines() -> list[re.Match[str]]:
    """Return the lines of the crontab that run something."""
    lines = [line for line in CRON.read_text().splitlines() if line and not line.startswith(("#", "MAILTO="))]
    matches = [_CRON_LINE.fullmatch(line) for line in lines]
    assert all(matches), lines
    return [match for match in matches if match]


def crawler_calls() -> list[list[str]]:
    """Return the arguments of every call of ``crawler`` that a schedule makes."""
    calls = []
    for command in [line["command"] for line in cron_lines()] + [unit(SERVICE)["Service"]["ExecStart"]]:
        words = shlex.split(command)
        begin = next(at for at, word in enumerate(words) if Path(word).name == "crawler" and at < len(words) - 1)
        calls.append(words[begin + 1 : next((at for at, word in enumerate(words) if word.startswith(">")), None)])
    return calls


def test_there_are_examples() -> None:
    assert {"hst", "jwst", "local", "tess"} < {path.stem for path in JOBS}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_job_file(path: Path) -> None:
    told = with_job_file(str(path), {})
    for root in told["roots"]:
        open_store(as_url(root), told.get("storage_options"))  # knows the scheme and the options, and asks nobody


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_commented_lines_are_right_too(path: Path, tmp_path: Path) -> None:
    """What a reader uncomments is read as well: a comment whose text looks like TOML is taken for it."""
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if match := re.match(r"# (?:(\w+ = )|\[\w+\]$)", line):
            # In place of what it is an alternative to.
            lines = [one for one in lines if not (match[1] and one.startswith(match[1]))]
            lines.append(line.removeprefix("# "))
        else:
            lines.append(line)
    whole = tmp_path / path.name
    whole.write_text("\n".join(lines))
    read_job_file(str(whole))


@pytest.mark.parametrize("path", [path for path in JOBS if path != LOCAL], ids=lambda path: path.stem)
def test_public_bucket_is_read_without_credentials_and_said_where_it_is_known_from(path: Path) -> None:
    told = read_job_file(str(path))
    assert told["storage_options"]["anon"] is True
    assert re.search(r"https://registry\.opendata\.aws/[\w-]+/", path.read_text())
    assert all(re.fullmatch(r"s3://[a-z0-9-]+/.+/", root) for root in told["roots"]), "all of it is not for a beginning"


@pytest.mark.parametrize("call", crawler_calls(), ids=" ".join)
def test_schedules_call_what_there_is(call: list[str]) -> None:
    name, *args = call
    command = commands.commands[name]
    context = command.make_context(name, list(args))  # raises click.UsageError where an option is not known
    assert isinstance(context, click.Context)
    if name == "index":
        assert (LOCAL.parent / Path(context.params["job_file"]).name).is_file()
    else:
        told = read_job_file(str(LOCAL))
        assert context.params["catalogue"] == told["catalogue"]


@pytest.mark.parametrize("line", cron_lines(), ids=lambda line: line["command"][:40])
def test_cron(line: re.Match[str]) -> None:
    assert re.fullmatch(r"(?:(?:\*|\d+)\s+){5}", line["when"])
    assert shlex.split(line["command"])[0] == "flock"
    assert "%" not in line["command"], "a newline, to cron"
    subprocess.run(["sh", "-n", "-c", line["command"]], check=True)


def test_units_are_about_the_same_folders() -> None:
    told = read_job_file(str(LOCAL))
    assert unit(SERVICE)["Unit"]["RequiresMountsFor"].split() == told["roots"]
    assert Path(told["catalogue"]).parent == Path("/var/lib") / unit(SERVICE)["Service"]["StateDirectory"]


def test_timer_begins_the_service() -> None:
    assert SERVICE.stem == TIMER.stem
    assert "Unit" not in unit(TIMER)["Timer"], "the service of the same name"
    assert unit(TIMER)["Timer"]["OnCalendar"] == "*-*-* 02:30:00"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for path in (SERVICE, TIMER):
        # It looks whether the program is there.
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/crawler/bin/crawler", sys.executable))
    verify = ["systemd-analyze", "verify", "--man=no", str(tmp_path / SERVICE.name), str(tmp_path / TIMER.name)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "crawler" in line]
    assert (done.returncode, ours) == (0, [])
