"""The optional distribution of the old import names forwards, and is no part of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "import-names"

CODE = """
import sys
sys.path.insert(0, sys.argv[1])
from nv_attestation_sdk import attestation
from nv_attestation_sdk.attestation import Attestation, Devices
import nv_attestation_sdk.attestation as again
import verifier.cc_admin
from verifier.cc_admin import attest
from nvattest.compat.nv_attestation_sdk import attestation as ours
from nvattest.compat.verifier import cc_admin
assert attestation is ours is again and Attestation is ours.Attestation and Devices is ours.Devices
assert verifier.cc_admin is cc_admin and attest is cc_admin.attest
"""


def test_the_old_names_are_the_same_objects() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"the examples are not here: {FOLDER}")
    done = subprocess.run([sys.executable, "-c", CODE, str(FOLDER)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_does_not_take_the_old_names() -> None:
    import nvattest

    package = Path(nvattest.__file__).resolve().parent.parent
    assert not (package / "nv_attestation_sdk").exists()
    assert not (package / "verifier").exists()
