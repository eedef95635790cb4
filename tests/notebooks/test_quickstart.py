"""The notebook runs from its first cell to its last, and is kept with what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"
PICTURES = 4


@pytest.fixture
def kept() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(notebook: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def test_runs(kept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Neither kernels nor settings of whoever runs the tests: the kernel is this environment's own.
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel's own draws without a screen, into the notebook
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    folder = tmp_path / "a folder"
    folder.mkdir()
    shown = [output["output_type"] for output in outputs(kept)]

    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(kept, timeout=120, kernel_name="python3", resources=place)
    client.execute()

    assert not [output for output in outputs(kept) if output["output_type"] == "error"]
    assert not [output["text"] for output in outputs(kept) if output.get("name") == "stderr"]
    assert pictures(kept) == PICTURES
    assert [output["output_type"] for output in outputs(kept)] == shown, "what is kept is what comes out"
    assert [path.name for path in folder.iterdir()] == ["quickstart-files"]


def test_is_kept_with_its_outputs(kept: Any) -> None:
    nbformat.validate(kept)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert pictures(kept) == PICTURES


def test_names_no_machine() -> None:
    text = NOTEBOOK.read_text()
    assert not [path for path in ("/home/", "/root/", "/tmp/", "/work/", "site-packages") if path in text]
