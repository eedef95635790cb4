"""Job files of public buckets, and clusters to crawl them on, in ``config``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crawler.cluster import ClusterPlan
from crawler.errors import UsageError
from crawler.job_file import read_job_file
from crawler.stores import as_url, open_store
from tests.conftest import TREE_FILES

CONFIG = Path(__file__).parents[2] / "config"
JOBS = sorted((CONFIG / "jobs").glob("*.toml"))
CLUSTERS = sorted((CONFIG / "clusters").glob("*.toml"))


def test_there_are_some() -> None:
    assert len(JOBS) >= 7
    assert [path.stem for path in CLUSTERS] == ["cloud", "kubernetes", "laptop", "slurm"]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_job_reads_a_public_bucket_and_says_where_that_is_known_from(path: Path) -> None:
    told = read_job_file(str(path))

    assert told["storage_options"]["anon"] is True
    assert re.search(r"https://registry\.opendata\.aws/[\w-]+/", path.read_text())
    for root in told["roots"]:
        assert re.fullmatch(r"s3://[a-z0-9-]+/.+/", root), "all of a bucket is not what one begins with"
        open_store(as_url(root), told["storage_options"])  # knows the options, and asks nobody


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_cluster_is_one_that_dask_can_start(path: Path) -> None:
    told = read_job_file(str(path))
    assert set(told) <= {"cluster_class", "cluster_options", "cluster_scale"}
    plan = ClusterPlan(told["cluster_class"], told["cluster_options"], told.get("cluster_scale", {}))
    try:
        assert callable(plan.found())
    except UsageError as error:
        assert re.fullmatch(r"[\w.]+ is not installed: pip install [\w-]+", str(error))  # noqa: PT017 - either is right


def test_laptop_crawls(tree: Path, tmp_path: Path) -> None:
    program = "from crawler.cli import main\nif __name__ == '__main__': main()"
    (tmp_path / "run.py").write_text(program)
    # The port of the dashboard may be taken here.
    cluster = (CONFIG / "clusters" / "laptop.toml").read_text().replace("127.0.0.1:8787", "127.0.0.1:0")
    (tmp_path / "laptop.toml").write_text(cluster.replace("n_workers = 4", "n_workers = 1"))
    words = ["index", tree, "-c", tmp_path / "made", "--cluster", tmp_path / "laptop.toml", "--json"]
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CONFIG.parent)},
    )

    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout)["walked"].values()) == TREE_FILES
