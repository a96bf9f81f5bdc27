"""NVIDIA's Python packages and nvattest side by side, in one run, on the same simulated GPUs and loopback services.

    python tests/benchmarks/compare_peers.py [--runs 5]

NVIDIA's are in the environment of ``make interop`` (``tests/interop/peers.py``), ours is installed from this checkout
into one below build/peers. Both talk to the same driver library and the same RIM and OCSP services.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "interop"))
import peers
from measure import ROOT, Cost, heading, median_cost, ms, run, table

from nvattest.testing import Platform
from nvattest.testing.world import World

NONCE = "ab" * 32

SIZE = """
import importlib.metadata, os, sysconfig
folder = sysconfig.get_paths()["purelib"]
names = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()} - {"pip", "setuptools"}
total = 0
for top, folders, files in os.walk(folder):
    folders[:] = [f for f in folders if f != "__pycache__" and f.split("-")[0] not in ("pip", "setuptools")]
    total += sum(os.lstat(os.path.join(top, file)).st_size for file in files)
print(len(names), total)
"""
THEIR_SETTINGS = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
from verifier import cc_admin
nonce = "NONCE"
settings = dict.fromkeys(("driver_rim", "vbios_rim", "service_key"))
settings.update(dict.fromkeys(("test_no_gpu", "allow_hold_cert", "ocsp_nonce_disabled", "verbose"), False), user_mode=True)
settings.update(rim_service_url=os.environ["NVAT_RIM_SERVICE_BASE_URL"] + "/v1/rim/", ocsp_url=os.environ["NVAT_OCSP_BASE_URL"])
""".replace("NONCE", NONCE)
THEIRS = (
    THEIR_SETTINGS
    + """
result = cc_admin.attest(settings, nonce, cc_admin.collect_gpu_evidence(nonce))
print("verdict", result[0])
"""
)
THEIR_SDK = """
import os, warnings
warnings.simplefilter("ignore")
from nv_attestation_sdk import attestation
client = attestation.Attestation()
client.set_name("comparison")
client.set_nonce("NONCE")
client.add_verifier(
    attestation.Devices.GPU, attestation.Environment.LOCAL, "", "",
    ocsp_url=os.environ["NVAT_OCSP_BASE_URL"], rim_url=os.environ["NVAT_RIM_SERVICE_BASE_URL"] + "/v1/rim/",
)
print("verdict", client.attest(client.get_evidence()))
""".replace("NONCE", NONCE)
THEIRS_RUNNING = (
    THEIR_SETTINGS
    + """
for number in range(int(sys.argv[1]) + 1):
    evidence = cc_admin.collect_gpu_evidence(nonce)
    wall, cpu = time.perf_counter(), time.process_time()
    verdict = cc_admin.attest(settings, nonce, evidence)[0]
    if number:
        print("loop", time.perf_counter() - wall, time.process_time() - cpu, verdict, file=sys.__stderr__)
"""
)
OURS_RUNNING = """
import os, sys, time
import nvattest
from nvattest.collateral.gather import gather
from nvattest.collateral.gather import GatherOptions
from nvattest.devices.collect import collect_gpus
from nvattest.session import now
nonce = nvattest.Nonce.from_hex("NONCE")
anchors = nvattest.trust_anchors_from_pem(open(os.environ["NVATTEST_TRUST_ANCHORS"], "rb").read())
evidence = collect_gpus(nonce, timeout=30)
options = GatherOptions(rim_url=os.environ["NVAT_RIM_SERVICE_BASE_URL"], ocsp_url=os.environ["NVAT_OCSP_BASE_URL"])
for number in range(int(sys.argv[1]) + 1):
    wall, cpu = time.perf_counter(), time.process_time()
    verifier = nvattest.Verifier(anchors=anchors)
    found = gather(evidence, options, at=now(), verifier=verifier)
    verdict = verifier.appraise(evidence, nonce=nonce, collateral=found, at=now()).trusted
    if number:
        print("loop", time.perf_counter() - wall, time.process_time() - cpu, verdict)
at = now()
for number in range(int(sys.argv[1]) + 1):
    evidence = collect_gpus(nvattest.Nonce(bytes((number,)) * 32), timeout=30)
    wall, cpu = time.perf_counter(), time.process_time()
    verdict = verifier.appraise(evidence, nonce=nvattest.Nonce(bytes((number,)) * 32), collateral=found, at=at).trusted
    if number:
        print("kept", time.perf_counter() - wall, time.process_time() - cpu, verdict)
""".replace("NONCE", NONCE)


def environments(folder: Path) -> tuple[Path, Path]:
    """The interpreters of both environments, made where they are missing; ours is installed anew each time."""
    ours = folder / "nvattest"
    if not (ours / "bin" / "python").exists():
        venv.create(ours, with_pip=True)
    _pip(ours, "--force-reinstall", "--no-deps", str(ROOT))
    _pip(ours, str(ROOT))
    return peers.make("sdk"), ours / "bin" / "python"


def _pip(place: Path, *arguments: str) -> None:
    command = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ratio(theirs: float, ours: float) -> str:
    return f"{theirs / ours:.1f}"


def installation(theirs: Path, ours: Path) -> None:
    sizes = [run([str(python), "-c", SIZE])[1].split() for python in (theirs, ours)]
    (their_count, their_size), (our_count, our_size) = [(int(count), int(size)) for count, size in sizes]
    heading("Installed (packages with their dependencies, without pip, setuptools and byte code)")
    table(
        ("", "NVIDIA", "nvattest", "ratio"),
        [
            ("packages", their_count, our_count, ratio(their_count, our_count)),
            ("size", f"{their_size / 1e6:.1f} MB", f"{our_size / 1e6:.1f} MB", ratio(their_size, our_size)),
        ],
    )


def in_turns(pairs: dict[str, tuple[list[str], dict[str, str]]], count: int, folder: Path) -> dict[str, Cost]:
    costs: dict[str, list[Cost]] = {name: [] for name in pairs}
    for _ in range(count):
        for name, (command, environment) in pairs.items():
            cost, output = run(command, environment=environment, folder=folder)
            if "verdict" in output and "verdict True" not in output:
                raise RuntimeError(f"{name} did not verify:\n{output[-3000:]}")
            costs[name].append(cost)
    return {name: median_cost(found) for name, found in costs.items()}


def compare(rows: Sequence[tuple[str, Cost, Cost]]) -> None:
    table(
        ("", "NVIDIA wall", "CPU", "memory", "nvattest wall", "CPU", "memory", "ratio wall", "CPU", "memory"),
        [
            (name, ms(a.wall), ms(a.cpu), f"{a.rss:.0f} MB", ms(b.wall), ms(b.cpu), f"{b.rss:.0f} MB",
             ratio(a.wall, b.wall), ratio(a.cpu, b.cpu), ratio(a.rss, b.rss))
            for name, a, b in rows
        ],
    )  # fmt: skip


def start(theirs: Path, ours: Path, count: int, folder: Path) -> None:
    base = dict(os.environ)
    quiet = [str(theirs), "-W", "ignore", "-c"]
    found = in_turns(
        {
            "verifier": ([*quiet, "from verifier import cc_admin"], base),
            "sdk": ([*quiet, "from nv_attestation_sdk import attestation"], base),
            "ours": ([str(ours), "-c", "from nvattest import Verifier, load_bundle, load_evidence; Verifier()"], base),
        },
        count,
        folder,
    )
    heading(f"Import of all that a verification needs (median of {count})")
    compare(
        [
            ("nv-local-gpu-verifier", found["verifier"], found["ours"]),
            ("nv-attestation-sdk", found["sdk"], found["ours"]),
        ]
    )


def no_driver(theirs: Path, ours: Path, folder: Path) -> None:
    code = f"from verifier import cc_admin; cc_admin.collect_gpu_evidence('{NONCE}')"
    a = run([str(theirs), "-W", "ignore", "-c", code], folder=folder, statuses=tuple(range(256)))[0]
    command = [str(ours.parent / "nvattest"), "attest", "--nonce", NONCE]
    b = run(command, folder=folder, statuses=tuple(range(1, 256)))[0]
    heading("On a machine without the NVML library (once)")
    compare([("until it says so", a, b)])


def whole_process(theirs: Path, ours: Path, name: str, count: int, folder: Path) -> None:
    platform = Platform.build(name, clock=datetime.now(timezone.utc), nvdec0=True)
    platform.rims()
    peers.use_simulated_roots(theirs, platform)
    with World(platform) as world:
        environment = world.environment()
        attest = [
            str(ours.parent / "nvattest"),
            "attest",
            "--nonce",
            NONCE,
            "--cache-dir",
            str(folder / f"cache-{name}"),
        ]
        bundle = folder / f"bundle-{name}.json"
        bundle.write_text(json.dumps(platform.bundle()))
        pairs = {
            "verifier": ([str(theirs), "-W", "ignore", "-c", THEIRS], environment),
            "sdk": ([str(theirs), "-W", "ignore", "-c", THEIR_SDK], environment),
            "ours": ([*attest, "--no-cache"], environment),
            "cached": (attest, environment),
            "bundle": ([*attest, "--bundle", str(bundle)], environment),
        }
        in_turns(pairs, 1, folder)  # byte code, caches of files, and our cache
        requests = {}
        for key, (command, _) in pairs.items():
            world.services.forget()
            run(command, environment=environment, folder=folder)
            requests[key] = len(world.services.log)
        found = in_turns(pairs, count, folder)
        words = {
            "verifier": "NVIDIA, nv-local-gpu-verifier",
            "sdk": "NVIDIA, nv-attestation-sdk",
            "ours": "nvattest, nothing cached",
            "cached": "nvattest, its cache filled",
            "bundle": "nvattest, with a bundle",
        }
        heading(f"{name}: collected from the driver and verified, one process (median of {count})")
        table(
            ("", "requests", "wall", "CPU", "memory", "SDK / this, wall", "CPU"),
            [
                (word, requests[key], ms(found[key].wall), ms(found[key].cpu), f"{found[key].rss:.0f} MB",
                 ratio(found["sdk"].wall, found[key].wall), ratio(found["sdk"].cpu, found[key].cpu))
                for key, word in words.items()
            ],
        )  # fmt: skip
        if len(platform.devices) == 1:
            running(theirs, ours, world, folder, count)


def running(theirs: Path, ours: Path, world: World, folder: Path, count: int) -> None:
    environment = world.environment()
    loops = []
    for python, code in ((theirs, THEIRS_RUNNING), (ours, OURS_RUNNING)):
        output = run([str(python), "-W", "ignore", "-c", code, str(count)], environment=environment, folder=folder)[1]
        for word in ("loop", "kept"):
            found = [line.split() for line in output.splitlines() if line.startswith(word + " ")]
            if found:
                if any(parts[3] != "True" for parts in found):
                    raise RuntimeError(output[-3000:])
                loops.append(median_cost([Cost(wall=float(p[1]), cpu=float(p[2]), rss=0) for p in found]))
    a, b, kept = loops
    heading(f"One GPU in a running process (median of {count})")
    table(
        ("", "NVIDIA wall", "CPU", "nvattest wall", "CPU", "ratio wall", "CPU"),
        [
            ("RIMs and answers asked for", ms(a.wall), ms(a.cpu), ms(b.wall), ms(b.cpu), ratio(a.wall, b.wall),
             ratio(a.cpu, b.cpu)),
            ("Verifier and answers kept (NVIDIA: keeps nothing)", ms(a.wall), ms(a.cpu), ms(kept.wall), ms(kept.cpu),
             ratio(a.wall, kept.wall), ratio(a.cpu, kept.cpu)),
        ],
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--no-wait", action="store_true", help="leave out the 30 seconds that NVIDIA waits for NVML")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    theirs, ours = environments(options.folder.resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        installation(theirs, ours)
        start(theirs, ours, options.runs, folder)
        if not options.no_wait:
            no_driver(theirs, ours, folder)
        whole_process(theirs, ours, "hopper-1", options.runs, folder)
        whole_process(theirs, ours, "hopper-8-spt", max(2, options.runs // 2), folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
