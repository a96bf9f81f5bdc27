"""``nvattest verify-batch`` as a process: order, resumption after a kill, progress, bounded memory, its schema."""

from __future__ import annotations

import gzip
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
from referencing import Registry, Resource

from nvattest._package import schema_bytes
from nvattest.appraisal.inputs import Collateral, EvidencePolicy
from nvattest.cli import main
from nvattest.cli.output import open_stream
from nvattest.collateral.bundle import dump_bundle, serial_of, write_folder
from nvattest.errors import InputError
from nvattest.fleet import BatchSettings, Judge, Resumed, Sums, open_lines, open_output, read_lines, verify_batch
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
    return SimpleNamespace(made=made, lines=lines, options=options, folder=folder)


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
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 3)
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


def test_a_bundle_of_another_kind_is_named_with_option_and_kind(
    fleet: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    roots = str(fleet.folder / "roots.pem")
    for before in ([], ["--bundle", str(fleet.folder / "bundle.json")]):
        assert main(["verify-batch", *before, "--bundle", roots, "--input", roots]) == 4
        assert f"--bundle: {roots} is certificates, expected a bundle" in capsys.readouterr().err


def test_resume_without_a_file_is_refused(fleet: SimpleNamespace) -> None:
    done = run(fleet, "--resume")
    assert done.returncode != 0
    assert b"--resume needs an --output file" in done.stderr
    assert done.stdout == b""


def test_the_sums_stand_at_the_end_and_decide_the_status_where_that_is_asked(
    fleet: SimpleNamespace, tmp_path: Path
) -> None:
    data, sums = b"\n".join(fleet.lines), tmp_path / "sums.json"
    done = run(fleet, "--workers", "1", "--summary", str(sums), "--fail-on-untrusted", data=data)
    assert done.returncode == 12
    assert done.stderr.decode().splitlines() == [
        "8 lines: 6 trusted, 1 not trusted, 1 bad line   *** SIMULATED: this proves nothing ***",
        "  not trusted: nonce: 1",
        "  bad line: json: 1",
    ]
    written = json.loads(sums.read_text())
    assert (written["lines"], written["trusted"], written["failures"], written["errors"]) == (
        8, 6, {"nonce": 1}, {"json": 1},
    )  # fmt: skip
    jsonschema.Draft202012Validator(json.loads(schema_bytes("batch-summary-1.json"))).validate(written)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert {answer["settings"] for answer in answers} == {written["settings"]}
    good = run(fleet, "--workers", "1", "--fail-on-untrusted", "-l", "error", data=fleet.lines[0])
    assert (good.returncode, good.stderr) == (0, b"")
    # No line is no success.
    assert run(fleet, "--fail-on-untrusted", data=b"\n").returncode == 12


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_of_two_runs_one_writes_an_output(
    fleet: SimpleNamespace, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / name
    write_lines(source, fleet, 2)
    files = [*fleet.options, "--input", str(source), "--output", str(output), "--workers", "1"]
    assert main(["verify-batch", *files]) == 0
    with open_lines(str(output)) as file:
        written = file.read()
    first = open_output(str(output), Resumed(str(output), ""), open_stream)
    before = output.read_bytes()
    for more in ((), ("--resume",)):
        assert main(["verify-batch", *files, *more]) != 0
        assert "another process writes this output" in capsys.readouterr().err
        assert output.read_bytes() == before
    first.close()
    assert main(["verify-batch", *files, "--resume"]) == 0
    with open_lines(str(output)) as file:
        assert file.read() == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", name]


def test_a_compressed_run_that_is_killed_is_resumed_to_the_same_answers(fleet: SimpleNamespace, tmp_path: Path) -> None:
    source, plain, packed = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl", tmp_path / "out.jsonl.gz"
    write_lines(tmp_path / "in.jsonl", fleet, 40)
    source.write_bytes(gzip.compress((tmp_path / "in.jsonl").read_bytes()))
    files = ["--input", str(source), "--workers", "1"]
    assert run(fleet, *files, "--output", str(plain)).returncode == 0
    assert run(fleet, *files, "--output", str(packed)).returncode == 0
    whole = packed.read_bytes()
    assert gzip.decompress(whole) == plain.read_bytes()
    # What a kill leaves: a stream without an end, broken anywhere.
    for size in (len(whole) // 2, 0):
        packed.write_bytes(whole[:size])
        done = run(fleet, *files, "--output", str(packed), "--resume")
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(b"40 lines: 40 trusted")
        assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "in.jsonl.gz", "out.jsonl", "out.jsonl.gz"]


def test_a_compressed_input_that_was_cut_off_is_an_error_after_its_lines(tmp_path: Path) -> None:
    packed = gzip.compress(
        b"".join(b'{"id":%d,"nonce":"%s"}\n' % (n, os.urandom(16).hex().encode()) for n in range(999))
    )
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(packed[: len(packed) // 2])
    with open_lines(str(path)) as file:
        lines = read_lines(file)
        assert next(lines).startswith(b'{"id":0,')
        with pytest.raises(InputError, match="cannot be read to its end"):
            list(lines)


def test_only_an_output_of_the_same_lines_and_settings_is_resumed(fleet: SimpleNamespace, tmp_path: Path) -> None:
    bundles = (str(fleet.folder / "bundle.json"),)
    settings = BatchSettings(bundles=bundles, anchors=fleet.made.platform.anchors_pem, at=fleet.made.platform.time)
    judge, lines = Judge(settings), [fleet.lines[0], fleet.lines[1], fleet.lines[3]]
    answers = [judge.judge(line).encode() + b"\n" for line in lines]
    output = tmp_path / "out.jsonl"

    def resumed(content: bytes, digest: str = judge.digest, given: list[bytes] = lines) -> Sums:
        output.write_bytes(content)
        sums = Sums()
        Resumed(str(output), digest).compare(iter(given), sums)
        return sums

    assert resumed(b"".join(answers)).lines == 3
    assert resumed(b"".join(answers) + b'{"id":"no').lines == 3
    assert resumed(b"").lines == 0
    assert resumed(b"".join(answers).removesuffix(b"\n")).lines == 2
    other = Judge(replace(settings, at=None))
    for content, given, said in (
        (answers[1] + answers[0], lines, "answer 1 is not that of line 1"),
        (b"".join(answers), lines[:2], "answer 3 is beyond the last line"),
        (b"".join(answers), [lines[1], *lines], "answer 1 is not that of line 1"),
        (answers[0] + other.judge(lines[1]).encode() + b"\n", lines, "answer 2 is made with another bundle, policy"),
        (answers[0].replace(b'"node-0"', b'"node-1"'), lines, "answer 1 is not that of line 1"),
        (answers[0] + b"something\n", lines, "answer 2 is no answer"),
        (b'{"trusted":1}\n', lines, "answer 1 is no answer"),
        *(
            (json.dumps(json.loads(answers[0]) | change).encode() + b"\n", lines, "answer 1 is no answer")
            for change in (
                {"devices": 5},
                {"devices": [5]},
                {"devices": [{"failures": "x"}]},
                {"failures": [{}]},
                {"error": 1},
                {"collateral_expires": "soon"},
                {"format": "another"},
                {"version": 2},
                {"failures": [{"id": "nonce", "detail": ""}]},
                {"devices": [{"label": "GPU-0", "trusted": False, "failures": []}]},
                {"error": {"code": "bundle", "message": ""}},
            )
        ),
        (b"not even a line", lines, "no output of verify-batch"),
        (b'{"id":"a node","nonce":"' + b"0" * 64 + b'","evidence":[]}', lines, "no output of verify-batch"),
        (b'{"id":"' + b"A" * (17 << 20), lines, "no output of verify-batch"),
        (b"\n", lines, "answer 1 is no answer"),
    ):
        with pytest.raises(InputError, match=said):
            resumed(content, given=given)
        assert output.read_bytes() == content


def test_what_is_read_is_checked_before_the_output_is_touched(fleet: SimpleNamespace, tmp_path: Path) -> None:
    output, bundle = tmp_path / "out.jsonl", tmp_path / "fleet"
    output.write_text("answers of yesterday\n")
    fleet.made.write_bundle(str(bundle))
    source = tmp_path / "in.jsonl"
    write_lines(source, fleet, 2)
    (shard,) = bundle.glob("ocsp-*")
    good = shard.read_bytes()

    def refused(*arguments: str) -> str:
        status = main(["verify-batch", *fleet.options[2:], "--output", str(output), *arguments])
        assert status != 0
        assert output.read_text() == "answers of yesterday\n"
        return str(status)

    refused("--bundle", str(bundle), "--input", str(tmp_path / "missing"))
    shard.write_bytes(good + b" ")
    refused("--bundle", str(bundle), "--input", str(source))
    shard.write_bytes(good)
    refused("--bundle", str(bundle), "--input", str(source), "--resume")
    refused("--bundle", str(bundle), "--input", str(source), "--workers", "0")
    refused("--bundle", str(output), "--input", str(source))
    plain = tmp_path / "plain.gz"
    plain.write_bytes(source.read_bytes())
    refused("--bundle", str(bundle), "--input", str(plain))
    policy = tmp_path / "policy.toml"
    policy.write_text("")
    for same in (str(policy), str(source), str(tmp_path / "roots.pem"), str(bundle / "manifest.json"), str(shard)):
        with suppress(FileExistsError):
            os.link(fleet.folder / "roots.pem", tmp_path / "roots.pem")
        before = Path(same).read_bytes()
        options = ["--trust-anchors", str(tmp_path / "roots.pem"), "--bundle", str(bundle), "--policy", str(policy)]
        for option in ("--output", "--summary"):
            assert main(["verify-batch", *options, "--input", str(source), option, same]) != 0
        assert Path(same).read_bytes() == before


def test_answers_and_sums_go_into_two_files(fleet: SimpleNamespace, tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", fleet, 2)
    same = [
        "--input",
        str(tmp_path / "in.jsonl"),
        "--output",
        str(tmp_path / "out"),
        "--summary",
        str(tmp_path / "out"),
    ]
    assert main(["verify-batch", *fleet.options, *same]) != 0
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device without room here")
def test_an_output_on_a_full_disk_is_named(
    fleet: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, full = tmp_path / "lines", tmp_path / "full.gz"
    full.symlink_to("/dev/full")
    for count, output in ((1, "/dev/full"), (8, "/dev/full"), (1, str(full))):
        lines.write_bytes(b"\n".join(fleet.lines[:count]) + b"\n")
        words = ["verify-batch", *fleet.options, "--input", str(lines), "--output", output, "--workers", "1"]
        assert main(words) == 1
        assert f"the result could not be written to {output}: No space left on device" in capsys.readouterr().err


def test_a_fleet_is_judged_with_bundles_in_files_and_folders(fleet: SimpleNamespace, tmp_path: Path) -> None:
    whole = fleet.made.collateral()
    rims = tmp_path / "rims.json"
    rims.write_text(json.dumps(dump_bundle(Collateral(rims=whole.rims))))
    write_folder(str(tmp_path / "answers"), Collateral(), {a.content: serial_of(a.content) for a in whole.ocsp}, bytes)
    settings = BatchSettings(
        bundles=(str(rims), str(tmp_path / "answers")),
        anchors=fleet.made.platform.anchors_pem,
        at=fleet.made.platform.time,
    )
    answers = [json.loads(text) for text in verify_batch(fleet.lines, settings, workers=1)]
    assert [answer["trusted"] for answer in answers] == [True, True, False, False, True, True, True, True]
    judge = Judge(settings)
    assert {answer["settings"] for answer in answers} == {judge.digest}
    assert judge.digest != Judge(replace(settings, bundles=settings.bundles[:1])).digest
    assert judge.digest != Judge(replace(settings, policy=EvidencePolicy(expected_gpus=1))).digest


def test_progress_is_for_terminals_only(fleet: SimpleNamespace, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    write_lines(source, fleet, 4)
    done = run(fleet, "--input", str(source), "--workers", "1")
    assert done.returncode == 0
    assert b"verifying" not in done.stderr
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
    bundles = (str(fleet.folder / "bundle.json"),)
    settings = BatchSettings(bundles=bundles, anchors=fleet.made.platform.anchors_pem, at=fleet.made.platform.time)
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
