"""Other people's programs, unchanged, in simulated worlds, and what they say beside ours (``make interop``)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from nvattest.testing import Platform
from nvattest.testing.world import World

from . import peers

pytestmark = pytest.mark.interop

HERE = Path(__file__).resolve().parent
OURS = Path(sys.executable)
NODE = "hopper-8-ppcie"
KINDS = {"GPU": 8, "SWITCH": 4}


def peer(name: str) -> Path:
    """The interpreter of an environment; this fails nothing in a run that asked for everything by hand."""
    python = peers.made(name)
    if python is None:
        pytest.skip(f"build/interop/{name} is not there: make interop makes it")
    return python


@pytest.fixture(autouse=True)
def caches_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    # The compiled driver is shared by all tests of a run.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def platform_of(name: str, *lies: str) -> Platform:
    # NVIDIA's Python verifier compares index 35 though the report says that NVDEC0 is off.
    return Platform.build(name, clock=datetime.now(timezone.utc), lies=lies, nvdec0=True)


def run(world: World, folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """A program in the world, with our ``nvattest`` on its path."""
    environment = world.environment() | {"PATH": f"{OURS.parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [str(word) for word in command], env=environment, cwd=folder, capture_output=True, text=True, timeout=300
    )


def sdk(world: World, folder: Path, front: str, *words: str, policies: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What the program for NVIDIA's SDK found, with theirs or with our front."""
    python = peer("sdk") if front == "theirs" else OURS
    done = run(world, folder, python, "-W", "ignore", HERE / "sdk_program.py", front, *words, *policies)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    return found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    platform = platform_of(NODE)
    for name in ("sdk", "ppcie1"):
        if python := peers.made(name):
            peers.use_simulated_roots(python, platform)
    with World(platform, cache=str(tmp_path_factory.getbasetemp() / "node")) as world:
        yield world


# --- NVIDIA's Python SDK and its example policies ---------------------------------------------------------------------

# Members that are of one token; the last one is that of the simulated remote service.
_OF_ONE_TOKEN = {"jti", "iat", "nbf", "exp", "submods", "nvattest"}
_DATE = "x-nvidia-cert-expiration-date"


def comparable(claims: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in claims.items() if name not in _OF_ONE_TOKEN}
    for name, value in found.items():
        if isinstance(value, dict) and _DATE in value:
            # Their local verifier leaves out the time zone; NVIDIA's service and C++ tools say Z, as we do.
            found[name] = {**value, _DATE: value[_DATE].removesuffix("Z")}
    return found


@pytest.mark.parametrize("version", ["2.0", "3.0"])
@pytest.mark.parametrize("mode", ["LOCAL", "REMOTE"])
@pytest.mark.parametrize("device", KINDS)
def test_one_program_on_nvidias_sdk_and_on_our_front_says_the_same(
    node: World, tmp_path: Path, device: str, mode: str, version: str
) -> None:
    """The verdict, NVIDIA's own example policies on it, and every claim that theirs makes."""
    data = peers.packages_of(peer("ppcie1")) / "ppcie" / "verifier" / "data"
    kind = "GPU" if device == "GPU" else "Switch"
    policy = data / f"NV{kind}{mode.capitalize()}Policy_claims_{version}.json"
    theirs, ours = (
        sdk(node, tmp_path, front, mode, device, version, policies=(policy,)) for front in ("theirs", "ours")
    )
    for found in (theirs, ours):
        assert (found["verdict"], found["matched"], found["count"]) == (True, [True], KINDS[device]), found
    ((their_overall, their_devices),), ((our_overall, our_devices),) = theirs["said"], ours["said"]
    differences = list(differing(comparable(their_overall), comparable(our_overall)))
    for a, b in zip(their_devices, our_devices, strict=True):
        differences += differing(comparable(a), comparable(b))
    assert sorted(set(differences)) == []


def differing(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    """The names of what theirs says and ours says otherwise."""
    for name, value in theirs.items():
        found = ours.get(name, "nothing")
        if isinstance(value, dict) and isinstance(found, dict):
            yield from (f"{name}: {line}" for line in differing(value, found))
        elif found != value:
            yield f"{name}: {value!r:.60} here {found!r:.60}"


# One world each: what NVIDIA's verifier and our front say. What is true there and false here has a row in the README.
WORLDS = {
    "": (True, True),
    "gpu0:measurement=9": (False, False),
    "gpu0:signature": (False, False),
    "gpu0:other-nonce": (False, False),
    "gpu0:fwid": (False, False),
    "gpu0:revoked=1": (False, False),
    "gpu0:unknown=2": (False, False),
    "driver-rim:missing": (False, False),
    "driver-rim:revoked=0": (False, False),
    "driver-rim:expired=0": (False, False),
    "driver-rim:wrong-version": (False, False),
    "vbios-rim:signature": (False, False),
    "vbios-rim:missing": (False, False),
    "gpu0:hold=1": (False, False),
    "gpu0:expired=1": (False, False),
    "gpu0:ocsp-no-nonce=1": (False, False),
    "driver-rim:conflict=9": (False, False),
    "driver-rim:xml=comment": (False, False),
    # What real devices and responders do.
    "gpu0:chain-nuls": (True, True),
    "gpu0:no-next-update=1": (True, True),
    "gpu0:trailing=00": (False, True),
    "gpu0:ocsp-by-issuer=1": (False, True),
    # Refused only here.
    "gpu0:stale=1": (True, False),
    "gpu0:future=1": (True, False),
    "driver-rim:stale=0": (True, False),
    "gpu0:ocsp-serial=1": (True, False),
    "gpu0:responder-purpose=1": (True, False),
    "gpu0:algorithm=1": (True, False),
    "driver-rim:algorithm=0": (True, False),
    "gpu0:key-usage=0": (True, False),
    "gpu0:field-duplicate=3": (True, False),
    "gpu0:spdm-version=12": (True, False),
    "gpu0:opaque-version=2": (True, False),
    "gpu0:chip=GB100": (True, False),
    "gpu0:leaf-chip=GB100": (True, False),
    "driver-rim:wrong-product": (True, False),
    "driver-rim:wrong-edition": (True, False),
    "driver-rim:wrong-manufacturer": (True, False),
    "driver-rim:no-values": (True, False),
    "vbios-rim:no-values": (True, False),
}


@pytest.mark.parametrize("lie", WORLDS)
def test_in_a_bad_world_both_say_what_the_table_says(tmp_path: Path, lie: str) -> None:
    platform = platform_of("hopper-1", *filter(None, [lie]))
    peers.use_simulated_roots(peer("sdk"), platform)
    with World(platform) as world:
        found = tuple(sdk(world, tmp_path, front, "LOCAL", "GPU", "3.0")["verdict"] for front in ("theirs", "ours"))
        cli = run(world, tmp_path, OURS.with_name("nvattest"), "attest", "--no-cache")
    assert found == WORLDS[lie]
    assert (cli.returncode == 0) is found[1]


def test_nvidias_local_verifier_runs_as_a_command(tmp_path: Path) -> None:
    platform = platform_of("hopper-1")
    peers.use_simulated_roots(peer("sdk"), platform)
    with World(platform) as world:
        theirs = run(world, tmp_path, peer("sdk"), "-W", "ignore", "-m", "verifier.cc_admin", "--user_mode",
                     "--nonce", "ab" * 32)  # fmt: skip
        ours = run(
            world, tmp_path, OURS, "-m", "nvattest.compat.verifier.cc_admin", "--user_mode", "--nonce", "ab" * 32
        )
    for done in (theirs, ours):
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert "GPU Attestation is Successful" in done.stdout


# --- NVIDIA's verifier of protected PCIe ------------------------------------------------------------------------------

_STAGES = ("GPU Pre-checks", "Switch Pre-checks", "GPU Attestation", "Switch Attestation", "Topology checks")


def stages(text: str) -> dict[str, str]:
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[1]: row[2] for row in rows if row[1] in _STAGES}


@pytest.mark.parametrize("mode", ["LOCAL", "REMOTE"])
def test_ppcie_verifier_1_finds_a_closed_node(node: World, tmp_path: Path, mode: str) -> None:
    """On NVIDIA's Python SDK."""
    done = run(node, tmp_path, peer("ppcie1"), "-W", "ignore", "-m", "ppcie.verifier.verification",
               "--gpu-attestation-mode", mode, "--switch-attestation-mode", mode)  # fmt: skip
    assert stages(done.stdout) == dict.fromkeys(_STAGES, "SUCCESS"), done.stdout[-3000:] + done.stderr[-3000:]


def test_ppcie_verifier_3_runs_on_our_program_as_on_nvidias(node: World, tmp_path: Path) -> None:
    """It starts ``nvattest`` 2.0 by its name, and finds ours."""
    done = run(node, tmp_path, peer("ppcie3"), "-W", "ignore", "-m", "ppcie.verifier.verification")
    assert stages(done.stdout) == dict.fromkeys(_STAGES, "SUCCESS"), done.stdout[-3000:] + done.stderr[-3000:]


def test_ppcie_verifier_3_refuses_a_node_with_a_bad_gpu(tmp_path: Path) -> None:
    with World(platform_of(NODE, "gpu3:measurement=9")) as world:
        done = run(world, tmp_path, peer("ppcie3"), "-W", "ignore", "-m", "ppcie.verifier.verification")
    found = stages(done.stdout)
    assert found["GPU Attestation"] != "SUCCESS", done.stdout[-3000:]


# --- bindings and monitors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ["sdk", "tools"])
def test_our_program_runs_on_the_oldest_and_the_newest_binding(node: World, tmp_path: Path, environment: str) -> None:
    """nvidia-ml-py 12.550.52 and 13.615 or later, in the place of the one that is installed with us."""
    (tmp_path / "binding").mkdir()
    shutil.copy(peers.packages_of(peer(environment)) / "pynvml.py", tmp_path / "binding")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'binding')!r}); import pynvml; print(pynvml.__file__)\n"
    code += "from nvattest.cli import main; sys.exit(main(['attest', '--device', 'all', '--no-cache']))"
    done = run(node, tmp_path, OURS, "-c", code)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert str(tmp_path / "binding") in done.stdout.splitlines()[0]


def test_nvitop_shows_the_gpus_of_a_node(node: World, tmp_path: Path) -> None:
    done = run(node, tmp_path, peer("tools"), "-m", "nvitop", "--once", "--ascii")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("H100") == 8


def test_gpustat_shows_the_gpus_of_a_node(node: World, tmp_path: Path) -> None:
    done = run(node, tmp_path, peer("tools"), "-m", "gpustat", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    gpus = json.loads(done.stdout)["gpus"]
    assert [gpu["index"] for gpu in gpus] == list(range(8))
    assert all("H100" in gpu["name"] for gpu in gpus)


# --- Trustee's policies under its own engine --------------------------------------------------------------------------

_REGORUS = """
import json, sys
import hobofan_regorus as regorus
policy, claims = (open(path).read() for path in sys.argv[1:3])
engine = regorus.Engine()
engine.add_policy("trustee.rego", policy)
engine.set_input_json(json.dumps({"nvidia": json.loads(claims)}))
print(json.dumps(json.loads(engine.eval_query_as_json("data.policy.trust_claims"))["result"][0]["expressions"][0]["value"]))
"""


@pytest.mark.parametrize("version", ["3.0", "4.0"])
@pytest.mark.parametrize(
    ("lie", "kind", "vector"),
    [
        ("", "gpu", {"hardware": 2, "configuration": 2, "executables": 3}),
        ("", "nvswitch", {"hardware": 2, "configuration": 2, "executables": 3}),
        ("gpu0:measurement=9", "gpu", {"hardware": 2, "configuration": 36, "executables": 33}),
        ("gpu0:revoked=1", "gpu", {"hardware": 97, "configuration": 2, "executables": 3}),
    ],
)
def test_regorus_decides_on_our_claims_as_trustee_does(
    tmp_path: Path, lie: str, kind: str, vector: dict[str, int], version: str
) -> None:
    """The policies are ours, with the input and the names of Trustee's default ones: no package on the index has those."""
    trustee = pytest.importorskip("tests.unit.compat.trustee", reason="the tests run from another folder")
    claims = trustee.claims_by_kind(NODE if kind == "nvswitch" else "hopper-1", *filter(None, [lie]), version=version)
    device = next(item for item in claims if item["x-nvidia-device-type"] == kind)
    prefix = "x-nvidia-gpu" if kind == "gpu" else "x-nvidia-switch"
    (tmp_path / "policy.rego").write_text(trustee.policy(prefix, trustee.allowed_of(device)))
    (tmp_path / "claims.json").write_text(json.dumps(device))
    done = subprocess.run(
        [str(peer("tools")), "-c", _REGORUS, str(tmp_path / "policy.rego"), str(tmp_path / "claims.json")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == vector
