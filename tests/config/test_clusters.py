"""Clusters to crawl on, in ``config``: started where that can be done here, else held against their schemas."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from distributed import Nanny
from distributed.cli import dask_scheduler, dask_worker

from crawler.cluster import ClusterPlan
from crawler.errors import UsageError
from crawler.job.job_file import read_job_file
from tests.config.queue import Queue
from tests.conftest import TREE_FILES
from tests.s3.bucket_server import BucketServer
from tests.unit.test_cli import Run, commands

CLUSTERS = Path(__file__).parents[2] / "config" / "clusters"
NAMES = ("cloud", "kubernetes", "laptop", "slurm")
SECRET = "told-to-nobody-but-workers"


@pytest.fixture
def crawler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return commands(monkeypatch, capsys, tmp_path)


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    """Return a batch queue whose programs are on the PATH."""
    made = Queue(tmp_path / "queue")
    monkeypatch.setenv("PATH", f"{made.programs}{os.pathsep}{os.environ['PATH']}")
    yield made
    made.end()


def plan_of(name: str) -> ClusterPlan:
    told = read_job_file(str(CLUSTERS / f"{name}.toml"))
    assert set(told) <= {"cluster_class", "cluster_options", "cluster_scale", "cluster_places"}
    return ClusterPlan(told["cluster_class"], told["cluster_options"], told.get("cluster_scale", {}))


def changed(name: str, **replacements: str) -> None:
    """Write a configuration into the working folder, with lines of its own in place of some: ``cores="cores = 1"``."""
    lines = (CLUSTERS / f"{name}.toml").read_text().splitlines()
    for option, line in replacements.items():
        (at,) = (number for number, old in enumerate(lines) if old.startswith(f"{option} = "))
        lines[at] = line
    Path(f"{name}.toml").write_text("\n".join(lines))


def test_these_there_are() -> None:
    assert tuple(sorted(path.stem for path in CLUSTERS.glob("*.toml"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_class_takes_the_options_and_the_scale(name: str, queue: Queue) -> None:
    plan = plan_of(name)
    package = plan.kind.partition(".")[0]
    if find_spec(package) is None:
        with pytest.raises(UsageError, match=rf"^{package} is not installed: pip install '[\w\[\]-]+'$"):
            plan.resolve()
        pytest.skip(f"{package} is not installed")
    made = plan.resolve()
    # Each takes what it does not know, and hands it on to the next: a job of the queue, or a worker of this machine.
    takers = [*made.__mro__, *getattr(made, "job_cls", object).__mro__, *Nanny.__mro__]
    assert set(plan.options) <= {name for one in takers for name in inspect.signature(one.__init__).parameters}


def test_laptop_crawls(crawler: Run, tree: Path) -> None:
    # The port of the dashboard may be taken here.
    changed("laptop", n_workers="n_workers = 1", dashboard_address='dashboard_address = "127.0.0.1:0"')
    ended = crawler("index", tree, "-c", "made", "--cluster", "laptop.toml", "--json")

    assert ended.code == 0, ended.err
    assert sum(json.loads(ended.out)["walked"].values()) == TREE_FILES


class TestSlurm:
    """By dask-jobqueue, with a queue of this machine."""

    @pytest.fixture(autouse=True)
    def _here(self, crawler: Run, tmp_path: Path) -> None:  # in the folder of `crawler`
        changed(
            "slurm",
            cores="cores = 1",
            processes="processes = 1",
            memory='memory = "1 GiB"',
            interface='interface = "lo"',
            local_directory=f"local_directory = '{tmp_path}'",
        )

    def test_crawls_and_leaves_nothing_behind(self, crawler: Run, tree: Path, queue: Queue) -> None:
        files = sorted(tree.glob("night*/*.fits"))
        with BucketServer({f"survey/{path.name}": path.read_bytes() for path in files}) as server:
            Path("job.toml").write_text(
                "[crawl]\nroots = ['s3://survey/']\ncatalogue = 'made'\n"
                f"[storage_options]\nkey = 'me'\nsecret = '{SECRET}'\nendpoint_url = '{server.origin}'\n"
                "client_kwargs = {region_name = 'us-east-1'}\n"
            )
            ended = crawler("index", "--job", "job.toml", "--cluster", "slurm.toml", "--json")

        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["walked"] == {"ok": len(files)}
        assert 1 <= len(queue.jobs) <= 20
        assert queue.ends()
        submitted = queue.kept()
        for asked in ("-p batch", "-A astronomy", "-t 01:00:00", "--mem=1G", "--cpus-per-task=1"):
            assert f"#SBATCH {asked}\n" in submitted
        assert "--lifetime 55m --lifetime-stagger 4m" in submitted
        assert SECRET not in submitted
        assert SECRET not in ended.err

    def test_a_queue_that_refuses(self, crawler: Run, tree: Path, queue: Queue) -> None:
        queue.refuse()
        ended = crawler("index", tree, "-c", "made", "--cluster", "slurm.toml")

        assert ended.code == 1
        assert ended.fault.startswith("cluster file slurm.toml, line ")
        assert ended.fault.endswith("cannot be started: sbatch: error: invalid partition specified: batch")
        assert queue.jobs == []

    def test_no_queue(self, crawler: Run, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        ended = crawler("index", tree, "-c", "made", "--cluster", "slurm.toml")

        assert ended.code == 2
        assert ended.fault.endswith(
            "SLURMCluster needs the program sbatch, which is not on the PATH: run crawler on a login node"
        )


class TestKubernetes:
    """What the operator of dask-kubernetes is given."""

    @pytest.fixture
    def made(self) -> dict[str, Any]:
        named = plan_of("kubernetes").options["custom_cluster_spec"]
        made: dict[str, Any] = yaml.safe_load((CLUSTERS.parents[1] / named).read_text())
        return made

    def test_is_what_its_resource_definition_says(self, made: dict[str, Any]) -> None:
        package = find_spec("dask_kubernetes")
        assert package is not None
        assert package.origin is not None
        (path,) = Path(package.origin).parent.glob("**/crds/daskcluster.yaml")
        definition = yaml.safe_load(path.read_text())["spec"]
        assert made["apiVersion"] == f"{definition['group']}/{definition['versions'][0]['name']}"
        assert made["kind"] == definition["names"]["kind"]
        schema = definition["versions"][0]["schema"]["openAPIV3Schema"]
        _closed(schema)
        jsonschema.validate({"spec": made["spec"]}, schema)

    def test_containers_run_what_dask_has(self, made: dict[str, Any]) -> None:
        for part, command in (("worker", dask_worker.main), ("scheduler", dask_scheduler.main)):
            (container,) = made["spec"][part]["spec"]["containers"]
            program, *words = (word.replace("$(DASK_WORKER_NAME)", "name") for word in container["args"])
            assert program == f"dask-{part}"
            command.make_context(program, words)  # raises where an option is not known
            assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys()

    def test_service_leads_to_the_scheduler(self, made: dict[str, Any]) -> None:
        (container,) = made["spec"]["scheduler"]["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in made["spec"]["scheduler"]["service"]["ports"]} == ports
        assert made["spec"]["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == made["metadata"]["name"]


def _closed(schema: dict[str, Any]) -> None:
    """Have a schema refuse names that it does not know, as Kubernetes drops them unsaid."""
    for value in list(schema.values()):
        if isinstance(value, dict):
            _closed(value)
    if isinstance(schema.get("properties"), dict) and "type" in schema and "additionalProperties" not in schema:
        schema["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
