"""Notebooks run from top to bottom, on the sample set and a run of this session."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def test_the_notebooks_are_found():
    assert "01_first_encoder.ipynb" in NOTEBOOKS


@pytest.mark.filterwarnings(
    "ignore:Proactor event loop", "ignore::DeprecationWarning:zmq", "ignore::DeprecationWarning:jupyter_client"
)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HALFSEEN_RUN", str(trained))
    monkeypatch.setenv("HALFSEEN_SAMPLES", str(tmp_path / "samples"))
    notebook = nbformat.read(FOLDER / name, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # outputs are not kept in the repository
    NotebookClient(
        notebook, timeout=150, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    shown = "".join(
        str(output.get("text", "")) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    for text in ("384 features", "random weights", "pixel statistics", "balanced accuracy"):
        assert text in shown
    assert any("image/png" in o.get("data", {}) for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
