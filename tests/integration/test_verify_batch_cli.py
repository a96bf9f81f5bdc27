"""``nvattest verify-batch`` as a process: order, resumption after a kill, progress, bounded memory, its schema."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
from referencing import Registry, Resource

from nvattest._schemas import schema_bytes
from nvattest.fleet import BatchSettings, verify_batch
from nvattest.model import format_time
from nvattest.testing import SimulatedFleet

NODES = 6


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A folder with the bundle and the roots, and lines: honest ones, one with another nonce, one that is no JSON."""
    made, folder = SimulatedFleet(NODES), tmp_path_factory.mktemp("fleet")
    (folder / "bundle.json").write_bytes(made.bundle())
    (folder / "roots.pem").write_bytes(made.platform.anchors_pem)
    lines = [made.line(index) for index in range(NODES)]
    other = json.loads(lines[2]) | {"id": "other", "nonce": "00" * 32}
    lines[2:2] = [json.dumps(other).encode(), b"{no json"]
    options = [
        "--bundle", str(folder / "bundle.json"), "--trust-anchors", str(folder / "roots.pem"),
        "--at", format_time(made.platform.clock),
    ]  # fmt: skip
    return SimpleNamespace(made=made, lines=lines, options=options)


def command(fleet: SimpleNamespace, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "nvattest", "verify-batch", *fleet.options, *arguments]


def run(fleet: SimpleNamespace, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(fleet, *arguments), input=data, capture_output=True, timeout=120)


def write_lines(path: Path, fleet: SimpleNamespace, count: int) -> list[str]:
    """``count`` lines with ids of their own; returns the ids."""
    names = [f"n{number}" for number in range(count)]
    chosen = islice(cycle(fleet.lines[4:]), count)
    path.write_text(
        "".join(json.dumps(json.loads(line) | {"id": name}) + "\n" for line, name in zip(chosen, names, strict=True))
    )
    return names


def test_lines_in_lines_out_in_order_and_by_the_schema(fleet: SimpleNamespace) -> None:
    data = b"\n\n".join(fleet.lines)  # empty lines are no platforms, and the last needs no line break
    done = run(fleet, "--workers", "2", data=data)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == [
        "node-0", "node-1", "other", None, *(f"node-{i}" for i in range(2, NODES)),
    ]  # fmt: skip
    assert [answer["trusted"] for answer in answers] == [True, True, False, False, *[True] * (NODES - 2)]
    schema = json.loads(schema_bytes("batch-1.json"))
    registry: Registry = Registry().with_resources(
        (document["$id"], Resource.from_contents(document))
        for document in (schema, json.loads(schema_bytes("evidence-1.json")))
    )
    validator = jsonschema.Draft202012Validator(schema, registry=registry)
    for answer in answers:
        validator.validate(answer)
    line = jsonschema.Draft202012Validator({"$ref": "urn:nvattest:schema:batch:1#/$defs/line"}, registry=registry)
    for text in [*fleet.lines[:3], *fleet.lines[4:]]:
        line.validate(json.loads(text))
    assert not validator.is_valid(answers[2] | {"trusted": True})
    assert not validator.is_valid(answers[3] | {"trusted": True, "result_code": 0})


def test_a_killed_run_is_resumed_to_the_same_output(fleet: SimpleNamespace, tmp_path: Path) -> None:
    source, output, whole = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    names = write_lines(source, fleet, 150)
    files = ["--input", str(source), "--workers", "1"]
    assert run(fleet, *files, "--output", str(whole)).returncode == 0
    process = subprocess.Popen(
        [*command(fleet, "--workers", "1", "--output", str(output))],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    # Half of the lines and no end: it answers some of them and then waits for more.
    process.stdin.write(b"".join(source.read_bytes().splitlines(keepends=True)[:100]))
    process.stdin.flush()
    while not output.exists() or output.read_bytes().count(b"\n") < 16:
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with suppress(BrokenPipeError):
        process.stdin.close()
    with output.open("ab") as file:
        file.write(b'{"id":"half a li')  # what a power cut leaves behind
    before = output.read_bytes().count(b"\n")
    assert 16 <= before < 150
    done = run(fleet, *files, "--output", str(output), "--resume")
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == whole.read_bytes()
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == names
    again = run(fleet, *files, "--output", str(output), "--resume")
    assert again.returncode == 0
    assert output.read_bytes() == whole.read_bytes()


def test_the_first_run_of_a_job_that_always_resumes_begins_at_the_first_line(
    fleet: SimpleNamespace, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    data = b"\xef\xbb\xbf" + b"\n".join(fleet.lines)  # as an editor saves it
    done = run(fleet, "--workers", "1", "--output", str(output), "--resume", data=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(output.read_text().splitlines()[0])["trusted"] is True
    assert output.read_bytes().count(b"\n") == len(fleet.lines)


@pytest.mark.parametrize("more", [(), ("--resume",)])
def test_answers_are_not_written_over_the_lines(fleet: SimpleNamespace, tmp_path: Path, more: tuple[str, ...]) -> None:
    source, alias = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_lines(source, fleet, 3)
    before = source.read_bytes()
    alias.symlink_to(source)
    for target in (source, alias):
        done = run(fleet, "--input", str(source), "--output", str(target), *more)
        assert done.returncode != 0
        assert b"--input and --output are one file" in done.stderr
        assert source.read_bytes() == before


def test_resume_without_a_file_is_refused(fleet: SimpleNamespace) -> None:
    done = run(fleet, "--resume")
    assert done.returncode != 0
    assert b"--resume needs an --output file" in done.stderr
    assert done.stdout == b""


def test_progress_is_for_terminals_only(fleet: SimpleNamespace, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    write_lines(source, fleet, 4)
    done = run(fleet, "--input", str(source), "--workers", "1")
    assert done.returncode == 0
    assert done.stderr == b""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(fleet, "--workers", "1", "--output", str(tmp_path / "out.jsonl")),
        stdin=subprocess.PIPE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(source.read_bytes())
        process.stdin.flush()
        # The input stays open, so it is still verifying when the line of progress appears.
        shown = b""
        while b"verifying" not in shown:
            shown += os.read(ours, 4096)
        process.stdin.close()
        assert process.wait(60) == 0
    os.close(ours)


def test_an_endless_line_is_one_error_and_the_next_line_is_judged(fleet: SimpleNamespace, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    with source.open("wb") as file:
        for _ in range(40):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + fleet.lines[0] + b"\n")
    done = run(fleet, "--input", str(source), "--workers", "1")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["trusted"], first["error"]["code"]) == (False, "too-large")
    assert second["trusted"]


def test_only_a_few_chunks_are_read_ahead(fleet: SimpleNamespace) -> None:
    """Memory is bounded: what was read and not yet answered never exceeds a few chunks per worker."""
    settings = BatchSettings(
        bundle=fleet.made.bundle(), anchors=fleet.made.platform.anchors_pem, at=fleet.made.platform.time
    )
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"{}"

    answers = verify_batch(source(), settings, workers=1)
    for answered in range(400):
        assert taken - answered <= 16 * 3 + 16
        assert not json.loads(next(answers))["trusted"]
    answers.close()  # type: ignore[attr-defined]
