"""What the hook's status and the watch write for Prometheus, read back by Prometheus' own client."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from nvattest.cli import main
from nvattest.guest.record import EXIT
from nvattest.model import parse_time

from .hook_world import NewWorld

parser = pytest.importorskip("prometheus_client.parser")
LABELS = {
    "nvattest_hook_verdict": "verdict",
    "nvattest_hook_phase_seconds": "phase",
    "nvattest_hook_devices": "kind",
    "nvattest_hook_finding": "code",
}


def read(path: Path) -> dict[str, Any]:
    """Each metric's value, or its values by label."""
    found: dict[str, Any] = {}
    for family in parser.text_string_to_metric_families(path.read_text(encoding="utf-8")):
        assert family.type == "gauge"
        assert family.documentation
        label = LABELS.get(family.name)
        values = {sample.labels.get(label, ""): sample.value for sample in family.samples}
        found[family.name] = values if label else values[""]
    return found


def test_the_status_of_a_good_run_is_written_for_prometheus(world: NewWorld, tmp_path: Path) -> None:
    guest = world()
    folder = tmp_path / "collector"
    folder.mkdir()
    folder.chmod(0o777)
    guest.run()
    assert guest.run("status", "--metrics", str(folder / "nvattest.prom")).status == 0
    found = read(folder / "nvattest.prom")
    assert found["nvattest_hook_verdict"] == {"trusted": 1, "no-gpu": 0, "not-trusted": 0, "unfinished": 0}
    assert found["nvattest_hook_verdict_stands"] == found["nvattest_hook_gpus_ready"] == 1
    assert found["nvattest_hook_verdict_simulated"] == 1
    assert found["nvattest_hook_devices"] == {"gpus": 1, "switches": 0}
    assert 0 <= found["nvattest_hook_verdict_age_seconds"] < 600
    state = guest.state
    assert found["nvattest_hook_verdict_timestamp_seconds"] == parse_time(state["time"]).timestamp()
    # Every phase of the record, and together they are the whole run.
    phases = found["nvattest_hook_phase_seconds"]
    assert set(phases) == set(state["milliseconds"])
    assert min(phases.values()) >= 0
    assert sum(phases.values()) == pytest.approx(state["milliseconds"]["end"] / 1000, abs=0.01)
    ends = [answer["next_update"] for answer in answers(guest.file("run/nvattest/appraisal.json"))]
    assert state["collateral_expires"] == min(ends)
    assert found["nvattest_hook_collateral_expiry_timestamp_seconds"] == parse_time(min(ends)).timestamp()
    # Whole or not at all, readable for the collector, and nothing beside it.
    assert [path.name for path in folder.iterdir()] == ["nvattest.prom"]
    assert stat.S_IMODE((folder / "nvattest.prom").stat().st_mode) == 0o644


def answers(path: Path) -> list[dict[str, Any]]:
    """The revocation answers of an appraisal on disk."""
    import json

    def below(value: object) -> list[dict[str, Any]]:
        if isinstance(value, dict):
            own = [value] if "next_update" in value else []
            return own + [item for member in value.values() for item in below(member)]
        return [item for member in value for item in below(member)] if isinstance(value, list) else []

    return below(json.loads(path.read_text(encoding="utf-8")))


def test_the_watch_writes_the_state_after_each_round_also_after_one_that_failed(
    world: NewWorld, tmp_path: Path
) -> None:
    guest = world()
    target = tmp_path / "nvattest.prom"
    words = ("--stage", "watch", "--once", "--metrics", str(target))
    assert guest.run(*words).status == 0
    assert read(target)["nvattest_hook_verdict_stands"] == 1
    guest.file("etc/nvattest/bundle.json").unlink()
    assert guest.run(*words).status != 0
    found = read(target)
    assert found["nvattest_hook_verdict"]["not-trusted"] == 1
    assert found["nvattest_hook_verdict_stands"] == found["nvattest_hook_gpus_ready"] == 0
    assert "nvattest_hook_collateral_expiry_timestamp_seconds" not in found


def test_before_the_first_run_what_is_not_known_is_absent(world: NewWorld, tmp_path: Path) -> None:
    guest = world()
    guest.configure(driver={"nvml": "/nowhere"})
    assert guest.run("status", "--metrics", str(tmp_path / "a.prom")).status == 1
    assert main(["hook", "status", "--root", str(guest.root), "--metrics", str(tmp_path / "b.prom")]) == 1
    assert read(tmp_path / "b.prom") == read(tmp_path / "a.prom")
    found = read(tmp_path / "a.prom")
    assert found["nvattest_hook_verdict"] == {"trusted": 0, "no-gpu": 0, "not-trusted": 0, "unfinished": 0}
    assert found["nvattest_hook_verdict_stands"] == 0
    assert set(found) == {"nvattest_hook_verdict", "nvattest_hook_verdict_stands"}


def test_metrics_that_cannot_be_written_are_said_and_decide_nothing(world: NewWorld, tmp_path: Path) -> None:
    guest = world()
    target = str(tmp_path / "missing" / "nvattest.prom")
    ended = guest.run("--stage", "watch", "--once", "--metrics", target)
    assert (ended.status, guest.ready, guest.state["verdict"]) == (0, 1, "trusted")
    assert f"the metrics could not be written: {target}: No such file or directory" in ended.stderr
    ended = guest.run("status", "--metrics", target)
    assert (ended.status, guest.ready) == (EXIT["output"], 1)
    assert "Last verdict: trusted" in ended.stdout


@pytest.mark.parametrize("words", [("prestart", "--metrics", "/x.prom"), ("status", "--metrics", "x.prom")])
def test_metrics_that_no_stage_writes_or_without_a_place_are_an_error(world: NewWorld, words: tuple[str, ...]) -> None:
    guest = world()
    ended = guest.run(*words)
    assert ended.status == EXIT["usage"]
    assert "--metrics" in ended.stderr.splitlines()[0]
