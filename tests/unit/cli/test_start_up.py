"""What a command costs before it does anything: the modules that its parser may not load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from nvattest.cli import COMMANDS
from nvattest.testing import DEFAULT_NONCE, Platform

# Only a verification, a request or a driver call needs these.
WORK = frozenset(
    {
        "cryptography", "jwt", "lxml", "pynvml", "regopy", "requests", "urllib3", "xmlschema", "dcap_qvl", "jinja2",
        "concurrent", "ctypes", "logging", "multiprocessing", "socket", "ssl", "tarfile", "uuid", "zipfile",
        "nvattest.appraisal.verifier", "nvattest.collateral.gather", "nvattest.collateral.http", "nvattest.fleet",
        "nvattest.pki.certificate", "nvattest.policy.isolation", "nvattest.session", "nvattest.testing.platform",
        "nvattest.token.claims", "nvattest.token.jose", "nvattest.token.verify",
    }
)  # fmt: skip
# These take longer to load than the lightest commands take in all.
FORMATS = frozenset({"dataclasses", "inspect", "json", "tomllib", "nvattest._documents", "nvattest.evidence"})

RUN = """
import contextlib, io, json, sys
from nvattest.cli import main
seen, before = {}, set(sys.modules)
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(words)
    seen[" ".join(words)] = sorted(set(sys.modules) - before)
print(json.dumps(seen))
"""


def test_no_parser_loads_what_only_a_run_needs() -> None:
    light = [["version"], ["--help"], ["hook", "--help"], ["gate", "--help"]]
    others = [[name, "--help"] for name in COMMANDS if [name, "--help"] not in light]
    # In one process, the lightest first: what a command loads shows at it and at all after it.
    words = [*light, *others, ["completion", "bash"]]
    done = subprocess.run([sys.executable, "-c", RUN, json.dumps(words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen: dict[str, list[str]] = json.loads(done.stdout)
    assert list(seen) == [" ".join(item) for item in words]
    loaded = {
        name: set(modules) & (WORK | (FORMATS if name.split() in light else set())) for name, modules in seen.items()
    }
    assert {name: modules for name, modules in loaded.items() if modules} == {}


def test_version_makes_no_named_tuple() -> None:
    # Making one compiles the text of each annotation: a millisecond of the 25 that these words take.
    made = (
        "import contextlib, io, sys; from nvattest.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['version'])\n"
        "ours = [module for name, module in sys.modules.items() if name.startswith('nvattest')]\n"
        "print(*(value for module in ours for value in vars(module).values() if hasattr(value, '_fields')))"
    )
    done = subprocess.run([sys.executable, "-c", made], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_a_run_that_asks_no_service_loads_no_http_client_and_no_verifier_of_tokens(tmp_path: Path) -> None:
    Platform.build("hopper-1").write(str(tmp_path))
    attest = [
        "-f", "json", "attest", "--gpu-evidence-source", "file", "--gpu-evidence-file", f"{tmp_path}/gpu-evidence.json",
        "--trust-anchors", f"{tmp_path}/anchors.pem", "--bundle", f"{tmp_path}/bundle.json",
        "--nonce", DEFAULT_NONCE.hex(), "--at", "2026-11-01T00:00:00Z",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", RUN, json.dumps([attest])], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    [loaded] = json.loads(done.stdout).values()
    assert "nvattest.token.jose" in loaded
    assert not set(loaded) & {
        "jwt", "requests", "urllib3", "ssl", "http.client", "urllib.request", "uuid", "platform",
        "nvattest.token.ear", "nvattest.token.verify", "nvattest.appraisal.guest", "nvattest.collateral.cpu",
    }  # fmt: skip


def test_the_meaning_of_a_word_is_looked_up_without_what_reads_files() -> None:
    words = json.dumps([["explain", "104"]])
    done = subprocess.run([sys.executable, "-c", RUN, words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    [loaded] = json.loads(done.stdout).values()
    assert not set(loaded) & (WORK | {"gzip", "hashlib", "shutil", "nvattest.report.reading", "nvattest.evidence"})
