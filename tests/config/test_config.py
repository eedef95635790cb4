"""The examples in ``config``: job files can be read, schedules call existing commands, the README names each file."""

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
from crawler.errors import UsageError
from crawler.job.job_file import read_job_file
from crawler.stores import as_url, open_store

CONFIG = Path(__file__).parents[2] / "config"
JOBS = sorted((CONFIG / "jobs").glob("*.toml"))
LOCAL = CONFIG / "jobs" / "local.toml"
README = CONFIG / "README.md"
SERVICE, TIMER, CRON = (CONFIG / "schedules" / f"crawler.{kind}" for kind in ("service", "timer", "cron"))
_CRON_LINE = re.compile(r"(?P<when>(?:\S+\s+){5})(?P<user>\S+)\s+(?P<command>.+)")


def unit(path: Path) -> configparser.ConfigParser:
    """Read a systemd unit; the units of this package are INI files."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


def cron_lines() -> list[re.Match[str]]:
    """Return the lines of the crontab that run a command."""
    lines = [line for line in CRON.read_text().splitlines() if line and not line.startswith(("#", "MAILTO="))]
    matches = [_CRON_LINE.fullmatch(line) for line in lines]
    assert all(matches), lines
    return [match for match in matches if match]


def crawler_calls() -> list[list[str]]:
    """Return the arguments of each call of ``crawler`` in the schedules."""
    calls = []
    for command in [line["command"] for line in cron_lines()] + [unit(SERVICE)["Service"]["ExecStart"]]:
        words = shlex.split(command)
        begin = next(at for at, word in enumerate(words) if Path(word).name == "crawler" and at < len(words) - 1)
        calls.append(words[begin + 1 : next((at for at, word in enumerate(words) if word.startswith(">")), None)])
    return calls


def test_readme_links_to_each_file() -> None:
    files = {path.relative_to(CONFIG).as_posix() for path in CONFIG.rglob("*") if path.is_file()}
    assert {"jobs/hst.toml", "jobs/jwst.toml", "jobs/local.toml", "jobs/tess.toml"} < files
    assert set(re.findall(r"\]\(([^)]+)\)", README.read_text())) == files - {README.name}


def test_readme_commands_name_existing_options_and_files() -> None:
    calls = re.findall(r"^crawler (.+)$", README.read_text(), re.MULTILINE)
    assert len(calls) == 3
    for name, *args in map(shlex.split, calls):
        context = commands.commands[name].make_context(name, list(args))  # raises click.UsageError for unknown options
        files = [context.params.get(option) for option in ("job_file", "cluster")]
        assert all((CONFIG.parent / file).is_file() for file in files if file)


def test_readme_shows_each_key_of_section_crawl(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", README.read_text(), re.DOTALL)
    job = tmp_path / "job.toml"
    job.write_text(text)
    shown = read_job_file(str(job))
    job.write_text("[crawl]\nno_such_key = 1\n")
    with pytest.raises(UsageError, match="it has roots, ") as caught:
        read_job_file(str(job))
    assert set(str(caught.value).partition("it has ")[2].split(", ")) <= set(shown)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_job_file_can_be_read(path: Path) -> None:
    told = with_job_file(str(path), {})
    for root in told["roots"]:
        open_store(
            as_url(root), told.get("storage_options")
        )  # raises for unknown schemes and options, without a request


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_commented_settings_can_be_read(path: Path, tmp_path: Path) -> None:
    """A comment that looks like a line of TOML is one, which a user may uncomment."""
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if match := re.match(r"# (?:(\w+ = )|\[\w+\]$)", line):
            # It replaces the active setting of the same name.
            lines = [one for one in lines if not (match[1] and one.startswith(match[1]))]
            lines.append(line.removeprefix("# "))
        else:
            lines.append(line)
    whole = tmp_path / path.name
    whole.write_text("\n".join(lines))
    read_job_file(str(whole))


@pytest.mark.parametrize("path", [path for path in JOBS if path != LOCAL], ids=lambda path: path.stem)
def test_job_file_of_public_bucket_is_anonymous_small_and_names_its_source(path: Path) -> None:
    told = read_job_file(str(path))
    assert told["storage_options"]["anon"] is True
    assert re.search(r"https://registry\.opendata\.aws/[\w-]+/", path.read_text())
    assert all(re.fullmatch(r"s3://[a-z0-9-]+/.+/", root) for root in told["roots"]), (
        "a first crawl must not read the whole bucket"
    )


@pytest.mark.parametrize("call", crawler_calls(), ids=" ".join)
def test_schedules_call_existing_commands(call: list[str]) -> None:
    name, *args = call
    command = commands.commands[name]
    context = command.make_context(name, list(args))  # raises click.UsageError for unknown options
    assert isinstance(context, click.Context)
    if name == "index":
        assert (LOCAL.parent / Path(context.params["job_file"]).name).is_file()
    else:
        told = read_job_file(str(LOCAL))
        assert context.params["catalogue"] == told["catalogue"]


@pytest.mark.parametrize("line", cron_lines(), ids=lambda line: line["command"][:40])
def test_cron_line_locks_and_parses(line: re.Match[str]) -> None:
    assert re.fullmatch(r"(?:(?:\*|\d+)\s+){5}", line["when"])
    assert shlex.split(line["command"])[0] == "flock"
    assert "%" not in line["command"], "cron replaces % by a newline"
    subprocess.run(["sh", "-n", "-c", line["command"]], check=True)


def test_units_and_job_file_use_the_same_folders() -> None:
    told = read_job_file(str(LOCAL))
    assert unit(SERVICE)["Unit"]["RequiresMountsFor"].split() == told["roots"]
    assert Path(told["catalogue"]).parent == Path("/var/lib") / unit(SERVICE)["Service"]["StateDirectory"]


def test_timer_starts_the_service() -> None:
    assert SERVICE.stem == TIMER.stem
    assert "Unit" not in unit(TIMER)["Timer"], "the timer starts the service of the same name"
    assert unit(TIMER)["Timer"]["OnCalendar"] == "*-*-* 02:30:00"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for path in (SERVICE, TIMER):
        # systemd checks that the program exists.
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/crawler/bin/crawler", sys.executable))
    verify = ["systemd-analyze", "verify", "--man=no", str(tmp_path / SERVICE.name), str(tmp_path / TIMER.name)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "crawler" in line]
    assert (done.returncode, ours) == (0, [])
