"""Which names are taken for FITS files: ``--include`` and ``--exclude``. Pure: names in, yes or no out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from crawler.errors import UsageError

_FORMATS = (
    "fits",
    "fit",
    "fts",
    # Conventions on top of FITS that have names of their own: visibilities, optical interferometry, pulsars.
    "uvfits",
    "idifits",
    "oifits",
    "psrfits",
    # Tile-compressed by fpack, gzipped by XMM-Newton's pipeline.
    "fz",
    "ftz",
    # What HEASARC's missions call event lists, spectra, response matrices, effective areas and light curves
    # (OGIP standards): FITS files all.
    "evt",
    "pha",
    "rmf",
    "arf",
    "lc",
)
# Left out, since most files so named are something else: .img (disk images; Swift's sky images need
# --include), .hdr, .dat, .cat, .mt, .imh (IRAF's own format).
_COMPRESSED = ("", ".gz", ".bz2", ".Z")

DEFAULT_INCLUDE = tuple(f"*.{name}{suffix}" for name in _FORMATS for suffix in _COMPRESSED)
"""Names that astronomers give to FITS files and hardly anybody to others. Case does not matter."""


class NameFilter:
    """Globs over the paths of objects.

    ``*`` and ``?`` match within one component, ``**`` any number of components, ``[a-z]`` and ``[!a-z]``
    one character. A glob without a slash is matched against the last component, one with a slash against
    the whole path. Case does not matter.

    Parameters
    ----------
    include, exclude : Sequence[str]
        A path is taken that matches any of the one and none of the other.

    Raises
    ------
    UsageError
        A glob that cannot be understood.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self.globs = tuple(include)
        self.by_path = any("/" in glob for glob in (*include, *exclude))
        """Whether the answer depends on where a path begins."""
        self._include = _Globs(include)
        self._exclude = _Globs(exclude)

    def __call__(self, path: str) -> bool:
        """Tell whether ``path``, relative to its root and decoded, is taken."""
        return self._include.match(path) and not self._exclude.match(path)


class _Globs:
    def __init__(self, globs: Sequence[str]) -> None:
        self._names = _compiled([glob for glob in globs if "/" not in glob])
        self._paths = _compiled([glob for glob in globs if "/" in glob])

    def match(self, path: str) -> bool:
        if self._names is not None and self._names.fullmatch(path.rpartition("/")[2]):
            return True
        return self._paths is not None and self._paths.fullmatch(path) is not None


def _compiled(globs: Sequence[str]) -> re.Pattern[str] | None:
    if not globs:
        return None
    for glob in globs:
        try:
            re.compile(_expression(glob))
        except re.error as error:
            raise UsageError(f"cannot understand the glob {glob!r}: {error.msg}") from error
    return re.compile("|".join(f"(?:{_expression(glob)})" for glob in globs), re.IGNORECASE | re.DOTALL)


_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


def _expression(glob: str) -> str:
    glob = glob.removeprefix("/")
    if glob.endswith("/"):
        glob += "**"
    return "".join(_translated(token) for token in _TOKEN.findall(glob))


def _translated(token: str) -> str:
    simple = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in simple:
        return simple[token]
    if token.startswith("[") and token.endswith("]") and len(token) > 2:
        body = token[1:-1]
        negated = "^" if body.startswith("!") else ""
        body = re.sub(r"([\\\[\]^&~|])", r"\\\1", body.removeprefix("!"))
        return f"(?!/)[{negated}{body}]"
    return re.escape(token)
