"""The notebook docs/tour.ipynb runs from top to bottom in a kernel, and shows its progress and pictures there."""

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Jupyter's own


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after it was executed in an empty folder."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("tour"))}}
    with pytest.MonkeyPatch.context() as here:
        here.setenv("PYTHONPATH", str(ROOT))
        nbclient.NotebookClient(notebook, timeout=900, resources=resources).execute()
    return notebook


def outputs(notebook, text):
    """Those of the cell that contains `text`."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and text in cell.source]
    return cell.outputs


def test_resumed_run_has_the_same_weights(executed):
    assert outputs(executed, "weights_sha256")[-1].data["text/plain"] == "True"


def test_progress_is_one_output_a_run_without_a_bar_at_the_end(executed):
    shown = outputs(executed, "runs = {")
    assert [output.output_type for output in shown] == ["display_data"] * 2
    for output in shown:
        lines = output.data["text/plain"].splitlines()
        assert lines[-1].startswith("epoch 30/30") and not any("━" in line for line in lines)


def test_pictures_are_shown(executed):
    for text in ("imshow(image.reshape(28, 28)", "val_loss"):
        shown = [output for cell in executed.cells if cell.cell_type == "code" and text in cell.source
                 for output in cell.outputs if "image/png" in output.get("data", {})]
        assert shown, text


def test_nothing_is_printed_that_the_cells_did_not_ask_for(executed):
    assert [output.text for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs
            if output.get("name") == "stderr"] == []
