"""The notebooks, run by Jupyter's own client against a data server, as learners run them."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from hyraxvm.core.paths import PROVISION
from hyraxvm.stages.workshop import exercises
from tests.unit.dapdir.running import Server

SOURCE = PROVISION / "workshop"
NAMES = sorted(path.stem for path in (SOURCE / "exercises").glob("*.md"))


@pytest.fixture(scope="session")
def www(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("www")
    exercises.make(SOURCE, made)
    return made


@pytest.fixture
def learner(
    served: Path,
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A learner's folder, which is served; checks read the files, as in the virtual machine."""
    folder = served / "learners/anna"
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("WORKSHOP_URL", f"{server.url}/workshop")
    monkeypatch.setenv("WORKSHOP_DATA", str(served / "workshop"))
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
    return folder


def run(path: Path, folder: Path) -> list[str]:
    """Run a notebook in a folder; return the text that each of its cells has printed."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.kernelspec.name = "python3"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return [
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_with_the_answers_every_check_passes(www: Path, learner: Path, name: str) -> None:
    said = run(www / "answers" / f"{name}.ipynb", learner)
    checks = (www / "answers" / f"{name}.ipynb").read_text().count('"check(')
    assert sum(text.startswith("Right: ") for text in said) == checks >= 2


def test_without_answers_a_notebook_says_what_to_do(www: Path, learner: Path) -> None:
    with pytest.raises(CellExecutionError) as caught:
        run(www / "notebooks" / "1-browser.ipynb", learner)
    assert caught.value.ename == "NotYet"
    assert "put your answer in the place of the dots" in caught.value.evalue
