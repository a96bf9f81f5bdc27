"""Other people's programs in environments of their own: what ``make interop`` and ``compare_peers.py`` run ours beside.

    python tests/interop/peers.py       # makes or refreshes all of them, below build/interop

The packages come from the index, never from this repository. NVIDIA's verifiers pin their roots as files of the
package; in these environments alone they are replaced with those of the simulation, so that simulated devices are
verified to the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from nvattest.testing import Platform
from nvattest.testing.certificates import pem

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "interop"
# NVIDIA's Python SDK pins the oldest binding that we support, the monitors take the newest.
PACKAGES: Mapping[str, Sequence[str]] = {
    "sdk": ("nv-attestation-sdk==2.7.3", "nv-local-gpu-verifier==2.7.3"),
    "ppcie1": ("nv-ppcie-verifier>=1.7,<2",),
    "ppcie3": ("nv-ppcie-verifier>=3,<4",),
    "tools": ("nvidia-ml-py>=13.615", "nvitop>=1.7", "gpustat>=1.1", "hobofan-regorus>=0.2"),
}


def make(name: str, folder: Path = FOLDER) -> Path:
    """The interpreter of an environment, made where it is missing or holds other packages.

    Raises:
        CalledProcessError: the index does not have them, or cannot be reached.
    """
    place = folder / name
    stamp, wanted = place / "made", "\n".join((*PACKAGES[name], sys.version))
    if not stamp.is_file() or stamp.read_text() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        venv.create(place, with_pip=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, *PACKAGES[name]], check=True, stdout=subprocess.DEVNULL)
        stamp.write_text(wanted)
    return place / "bin" / "python"


def made(name: str) -> Path | None:
    """The same without making it: None where ``make interop`` did not run."""
    place = FOLDER / name
    return place / "bin" / "python" if (place / "made").is_file() else None


def packages_of(python: Path) -> Path:
    """The folder in which an environment keeps its packages."""
    (folder,) = python.parents[1].glob("lib/python3*/site-packages")
    return folder


def use_simulated_roots(python: Path, platform: Platform) -> None:
    """Replace the two pinned roots of each of NVIDIA's verifiers in this environment."""
    device, rim = platform.roots_der()
    for name, root in (("verifier_device_root.pem", device), ("verifier_RIM_root.pem", rim)):
        for path in packages_of(python).rglob(name):
            # Platforms of one seed have the same roots, and other tests are reading them.
            if path.read_bytes() != pem((root,)):
                path.with_suffix(f".{os.getpid()}").write_bytes(pem((root,)))
                path.with_suffix(f".{os.getpid()}").replace(path)


if __name__ == "__main__":
    os.makedirs(FOLDER, exist_ok=True)
    for known in PACKAGES:
        print(f"{known}: {', '.join(PACKAGES[known])}: {make(known)}")
