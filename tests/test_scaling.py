"""The benchmarks of our engine alone, on the small data set: how it grows, what an epoch takes beside its updates."""

import json

import numpy as np
import pytest

from benchmarks import around, command, scaling
from fmnist_zoo import load_data


def test_images_grow_by_moving_a_pixel():
    images = load_data(("fit",), data="mini")["fit"].images[:100]
    grown = scaling.enlarge(images, 250)
    assert grown.shape == (250, 784) and grown.dtype == np.uint8
    np.testing.assert_array_equal(grown[:100], images)
    np.testing.assert_array_equal(grown[100:200].reshape(-1, 28, 28)[:, :, 1:], images.reshape(-1, 28, 28)[:, :, :-1])
    np.testing.assert_array_equal(grown[200:].reshape(-1, 28, 28)[:, 1:], images[:50].reshape(-1, 28, 28)[:, :-1])


def test_scaling_varies_one_thing_and_says_what_it_found(monkeypatch, capsys, tmp_path):
    def ask(arguments, what):
        point = json.loads(arguments[1].removeprefix("--point="))
        return {"first": 1e12, "epoch_seconds": [point["images"] / 1000], "memory_mb": 900.0, "flops": 10**9}

    monkeypatch.setattr(command, "ask", ask)
    monkeypatch.setattr(scaling, "bare", lambda: (2.0, 600.0))
    path = tmp_path / "scaling.json"
    assert scaling.main(["--axes=images,depth,batch", "--images=1000,2000", "--depth=3", "--batch=64,full",
                         "--rounds=2", f"--json={path}"]) == 0
    runs = json.loads(path.read_text())["runs"]
    assert [(one["axis"], one["value"]) for one in runs[:5]] == [
        ("images", 1000), ("images", 2000), ("depth", [400, 400, 400]), ("batch", 64), ("batch", "full")]
    assert [one["value"] for one in runs[5:]] == [one["value"] for one in runs[4::-1]]
    assert {one["over_bare_mb"] for one in runs} == {300.0}
    assert "over a bare import of TensorFlow: 600 MB, 2.0 s" in capsys.readouterr().out


def test_scaling_trains_a_point():
    point = {"model": "4D_drop03", "images": 300, "hidden": [30, 20], "batch": 128, "axis": "width", "value": [30, 20]}
    answer = scaling.work(point, epochs=2, data="mini")
    assert len(answer["epoch_seconds"]) == 2 and answer["first"] > 0


def test_around_counts_every_epoch_but_the_first(tmp_path, capsys):
    found = around.measure("softmax", 300, 4, "mini", str(tmp_path))
    assert len(found) == 3 and all(updates > 0 and beside > 0 for updates, beside in found)
    assert around.main(["--model=softmax", "--batch=full", "--epochs=3", "--data=mini"]) == 0
    assert capsys.readouterr().out.startswith("softmax, batch full, 2 epochs: updates ")
    for flags, said in ((["--epochs=1"], "at least 2"), (["--batch=32,64"], "must be one batch size")):
        with pytest.raises(SystemExit):
            around.main(flags)
        assert said in capsys.readouterr().err
