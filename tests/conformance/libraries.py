"""Where astropy and CFITSIO find the HDUs of a file, each asked in a process of its own.

Both libraries are made for files that keep to the Standard: on others they may crash, take all memory, or never
return. So each one runs in a child process with a limit of memory and time, which is replaced when it dies.

``python -m tests.conformance.libraries {astropy,cfitsio}`` is that child process: it reads one path a line, and
answers with one line of JSON.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import resource
import select
import subprocess
import sys
import warnings
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

LIBRARIES = {"astropy": "astropy", "cfitsio": "fitsio"}
"""The module through which Python reaches each library."""

_MEMORY = 3 * 2**30  # bytes of address space of a child process
_SECONDS = 20.0  # for one file


class Place(NamedTuple):
    """Where a library finds an HDU; ``end`` is the first byte after the padding of its data unit."""

    header_offset: int
    data_offset: int
    end: int


class Library:
    """A library in a child process.

    Parameters
    ----------
    name : {'astropy', 'cfitsio'}
    seconds : float
        Time for one file, after which the child process is killed.

    Attributes
    ----------
    deaths : int
        Files on which the child process died or was killed.
    """

    def __init__(self, name: str, seconds: float = _SECONDS) -> None:
        self.name = name
        self.deaths = 0
        self._seconds = seconds
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @staticmethod
    def is_installed(name: str) -> bool:
        """Tell whether Python can import the library."""
        return importlib.util.find_spec(LIBRARIES[name]) is not None

    def ask(self, path: Path) -> None:
        """Have the library look at a file, while others may look at it too."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tests.conformance.libraries", self.name],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        stdin, _ = _pipes(self._child)
        with contextlib.suppress(BrokenPipeError):
            stdin.write(f"{path}\n")
            stdin.flush()

    def answer(self) -> list[Place]:
        """Return the HDUs that the library finds, up to the first one that it cannot read; none where it dies."""
        assert self._child is not None, "not asked"
        _, stdout = _pipes(self._child)
        ready, _, _ = select.select([stdout], [], [], self._seconds)
        line = stdout.readline() if ready else ""
        if not line:
            self.deaths += 1
            self._end()
            return []
        return [Place(*place) for place in json.loads(line)]

    def _end(self) -> None:
        if self._child is not None:
            stdin, stdout = _pipes(self._child)
            self._child.kill()
            self._child.wait()
            stdout.close()
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
            self._child = None


def _pipes(child: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert child.stdin is not None
    assert child.stdout is not None
    return child.stdin, child.stdout


def places_of_astropy(path: str) -> list[Place]:
    """Return the HDUs that `astropy.io.fits.open` gives before it ends or raises."""
    from astropy.io import fits  # noqa: PLC0415 - each child process needs only one of the libraries

    found: list[Place] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Compressed images as the tables that they are in the file.
            with fits.open(path, disable_image_compression=True, memmap=False) as opened:
                for hdu in opened:
                    start, stop = hdu._data_offset, hdu._data_offset + hdu._data_size
                    found.append(Place(int(hdu._header_offset), int(start), int(stop)))
                    if stop < start:
                        break  # a negative size: astropy would go backwards, and read the same HDU for ever
        except Exception:  # whatever it is: astropy goes no further
            return found
    return found


def places_of_cfitsio(path: str) -> list[Place]:
    """Return the HDUs that CFITSIO lists."""
    import fitsio  # noqa: PLC0415

    try:
        with fitsio.FITS(path) as opened:
            offsets = [hdu.get_offsets() for hdu in opened]
    except Exception:  # whatever it is: the first HDU cannot be read
        return []
    return [Place(one["header_start"], one["data_start"], one["data_end"]) for one in offsets]


def main() -> None:
    """Answer for every path on standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    ask = {"astropy": places_of_astropy, "cfitsio": places_of_cfitsio}[sys.argv[1]]
    for line in sys.stdin:
        print(json.dumps(ask(line.rstrip("\n"))), flush=True)


if __name__ == "__main__":
    main()
