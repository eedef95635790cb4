"""What lost workers of a run wrote, and no commit will ever name."""

from __future__ import annotations

from pyarrow.fs import FileSelector

from crawler.catalogue.log import CatalogueLog, first_line
from crawler.catalogue.schema import TABLES
from crawler.errors import CatalogueError


def delete_orphans(log: CatalogueLog, crawl: str) -> int:
    """Delete the Parquet files of a run that its catalogue does not need; return how many there were.

    A worker that dies leaves what it wrote of a partition, which another writes again: whoever reads the folder's
    Parquet files would see it twice.

    Parameters
    ----------
    log : CatalogueLog
    crawl : str
        Id of the run, of which nothing is under way any more and all is committed.

    Raises
    ------
    CatalogueError
        The catalogue cannot be read or written.
    """
    needed = {fragment.path for fragment in log.snapshot().fragments}
    folder = log.folder
    orphans = []
    try:
        for table in TABLES:
            selector = FileSelector(folder.join(f"table={table}"), allow_not_found=True)
            names = (info.base_name for info in folder.filesystem.get_file_info(selector))
            paths = (f"table={table}/{name}" for name in names if name.startswith(crawl))
            orphans += [path for path in paths if path not in needed]
        for path in orphans:
            folder.filesystem.delete_file(folder.join(path))
    except OSError as error:
        raise CatalogueError(log.url, f"cannot be written: {first_line(error)}") from None
    return len(orphans)
