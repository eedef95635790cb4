"""What is printed works as it is printed: commands of hints, of the README and of the configurations."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from crawler.cli import commands
from crawler.cli.program import program
from crawler.demo import make_survey
from tests.terminal import on_terminal

ROOT = Path(__file__).parents[2]
SCRIPT = (
    f"#!{sys.executable}\nimport sys\nfrom crawler.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
)
"""What pip writes for a console script."""


def install(folder: Path) -> Path:
    """Write the console script as an installation has it."""
    folder.mkdir(parents=True)
    script = folder / "crawler"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    return script


def printed_commands(text: str) -> list[str]:
    """Return the commands that the demonstration prints at its end."""
    return [line.strip() for line in text.partition("Now ask for yourself:\n")[2].splitlines() if line.strip()]


class TestDemonstration:
    @pytest.mark.parametrize("columns", [80, 120])
    def test_runs_as_it_prints(self, tmp_path: Path, columns: int) -> None:
        """After the first command of the README nothing of this package is on the PATH."""
        install(tmp_path / ".venv" / "bin")
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}

        code, text = on_terminal(
            [".venv/bin/crawler", "demo", "my demo"], columns=columns, cwd=tmp_path, environment=environment
        )

        assert code == 0, text
        found = printed_commands(text)
        assert [shlex.split(one)[:2] for one in found] == [
            [".venv/bin/crawler", name] for name in ("info", "query", "headers")
        ]
        for one in found:
            code, answer = on_terminal(["sh", "-c", one], columns=columns, cwd=tmp_path, environment=environment)
            assert code == 0, answer
        for name in ("demo0023_flt.fits", "idcompspec.fits", "truncated", "not-fits", "error", "F606W", "exptime"):
            assert re.search(rf"│ {re.escape(name)} +│|┃ {name} +┃", text), f"{name} is broken"
        tables = [line for line in text.splitlines() if line[:1] in "│┃┏└┡"]
        assert {len(line) <= columns for line in tables} == {True}
        words = set(re.findall(r"[A-Za-z]{4,}", " ".join(tables)))
        assert {"compressed", "bytes", "unpack", "begin"} <= words, "a sentence is broken between its words alone"

    def test_is_named_as_it_was_started(self, tmp_path: Path) -> None:
        script = install(tmp_path / "bin")
        environment = {"PYTHONPATH": str(ROOT), "PATH": f"{script.parent}:/usr/bin:/bin"}

        def usage(*command: str, **more: str) -> str:
            done = subprocess.run(
                [*command, "info", "-h"],
                cwd=tmp_path,
                env={**os.environ, **environment, **more},
                capture_output=True,
                text=True,
                check=True,
            )
            return " ".join(done.stdout.partition("\n\n")[0].split())  # click breaks a long line

        assert usage("crawler") == "Usage: crawler info [OPTIONS] CATALOGUE"
        assert usage("bin/crawler") == "Usage: crawler info [OPTIONS] CATALOGUE"
        assert usage("bin/crawler", PATH="/bin") == "Usage: bin/crawler info [OPTIONS] CATALOGUE"
        assert usage(str(script), PATH="/bin") == f"Usage: {script} info [OPTIONS] CATALOGUE"
        assert usage(sys.executable, "-m", "crawler") == f"Usage: {sys.executable} -m crawler info [OPTIONS] CATALOGUE"
        shutil.move(script.parent, tmp_path / "my bin")
        assert usage("my bin/crawler", PATH="/bin") == "Usage: 'my bin/crawler' info [OPTIONS] CATALOGUE"

    @pytest.mark.parametrize("started", ["-c", "", "script.py", "/nowhere/crawler"])
    def test_of_a_program_that_calls_us_is_crawler(self, monkeypatch: pytest.MonkeyPatch, started: str) -> None:
        monkeypatch.setattr(sys, "argv", [started])
        assert program() == "crawler"


def commands_of_texts() -> list[str]:
    """Return the command lines of both READMEs that show some, and of comments in the configurations."""
    readme = (ROOT / "README.md").read_text() + (ROOT / "crawler" / "README.md").read_text()
    found = [line for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) for line in block.splitlines()]
    found += [" ".join(text.split()) for text in re.findall(r"`(crawler [^`]+)`", readme)]
    for path in (ROOT / "config").rglob("*.toml"):
        found += [line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#")]
    return [line for line in found if re.match(r"crawler [a-z]+ \S", line)]


@pytest.mark.parametrize("line", commands_of_texts())
def test_options_of_a_command_in_a_text_are_known(line: str) -> None:
    _, name, *words = shlex.split(line, comments=True)
    command = commands.commands[name]
    context = click.Context(command, info_name=name)
    command.make_parser(context).parse_args(words)


FAR = re.compile(r"(s3|https?|tcp)://|--job|--scheduler|/data/|example|\.\.\.")


@pytest.fixture
def home(tmp_path: Path, tree: Path) -> Path:
    """Return a home with what the README's commands name."""
    shutil.copytree(tree, tmp_path / "data")
    (tmp_path / "keys.txt").write_text(f"{tmp_path}/data/night0/exp000.fits\n")
    install(tmp_path / "bin")
    (tmp_path / "catalogue").symlink_to("my-catalogue")
    make_survey(tmp_path / "crawler-demo" / "survey")
    return tmp_path


def test_local_commands_of_the_readme_run(home: Path) -> None:
    """In the order of the README, as later ones ask what earlier ones have indexed."""
    local = [line for line in commands_of_texts() if not FAR.search(line)]
    assert {line.split()[1] for line in local} >= {"index", "info", "query", "runs", "vacuum"}
    environment = {"PYTHONPATH": str(ROOT), "PATH": f"{home}/bin:/usr/bin:/bin", "HOME": str(home)}
    for line in local:
        code, text = on_terminal(["sh", "-c", line], columns=80, cwd=home, environment=environment)
        assert code == 0, f"{line}: {text}"
        assert "Traceback" not in text
