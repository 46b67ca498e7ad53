"""Small cases of the campaign's part `load`, and that it notices what it looks for."""

import http.server
import threading

import pytest

from tests.campaign import driver, kills, load


@pytest.mark.long
def test_readers_of_tensorboard_see_all_runs_that_are_trained_meanwhile(tmp_path):
    failure, measured = load.readers(tmp_path, 2, 4)
    assert failure is None and measured["answers"] >= 2 * 6 and measured["server MB at the end"] > 10


@pytest.mark.parametrize("code, body, said", [(503, b"{}", "503"), (200, b"<html>", "Expecting value"),
                                              (200, b"[]", "list indices")])
def test_wrong_answer_ends_a_reader(code, body, said):
    class Wrong(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Wrong) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        reader = load.Reader(f"http://127.0.0.1:{server.server_port}/", 1, threading.Event())
        reader.run()
        server.shutdown()
    assert not reader.complete and said in reader.problems[0]


@pytest.mark.parametrize("memory, processor, said", [
    (lambda trial: 600.0, lambda trial: 0.01 * trial, None),
    (lambda trial: 600.0 + 0.2 * trial, lambda trial: 0.01 * trial, "the leader grew by 180 MB between trials 100"),
    (lambda trial: 600.0, lambda trial: 1e-5 * trial ** 2, "the leader took 4.4 s for the last 250 trials, and 1.1 s"),
])
def test_leader_that_grows_or_slows_down_is_noticed(memory, processor, said, tmp_path):
    trials = range(1000)
    measured = {"memory": [memory(trial) for trial in trials], "processor": [processor(trial) for trial in trials]}
    found = load.not_flat(measured)
    assert found is None if said is None else found.startswith(said)
    ones = [1.0] * len(trials)
    load.draw({**measured, "training": ones, "worker": ones, "seconds": ones, "own": ones}, tmp_path / "load.png")
    assert (tmp_path / "load.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("id", ["trainings:3", "sweep:12"])
def test_small_load_as_commands(id, tmp_path):
    part = load.Load()
    part.keep = tmp_path / "keep"
    assert driver.attempt(part, part.find(0, id)) is None
    assert (part.keep / f"{id.replace(':', '-')}.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", kills.WAITS)
def test_sweep_whose_leader_was_stopped_equals_an_undisturbed_one(name, tmp_path):
    pytest.importorskip("distributed")
    assert kills.waits(name, tmp_path, seconds=2.0) is None
