"""Write the files of a simulated node, so that every example here runs on any machine.

    python simulated_files.py FOLDER [PLATFORM] [FAULT ...]

writes gpu.json and switch.json (evidence, as collect-evidence prints it), bundle.json (RIMs and revocation answers),
roots.pem (the test roots, which no default trusts), nonce (64 hexadecimal digits) and clock (when all of it is valid);
and for the quote of nvattest attest --simulate --bind-tee FILE --simulate-guest snp-genoa, which is valid now:
cpu-collateral.pem, cpu-root.pem and cpu-policy.json.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timezone

from nvattest import DeviceKind
from nvattest.testing import Platform, SimulatedGuest


def main(folder: str, name: str = "hopper-8-ppcie", *faults: str) -> None:
    platform = Platform.build(name, lies=faults)
    nonce = os.urandom(32)
    files = {
        "gpu.json": platform.evidence_json(DeviceKind.GPU, nonce),
        "bundle.json": json.dumps(platform.bundle()),
        "roots.pem": platform.anchors_pem.decode("ascii"),
        "nonce": nonce.hex(),
        "clock": str(platform.time),
    }
    if platform.switches:
        files["switch.json"] = platform.evidence_json(DeviceKind.NVSWITCH, nonce)
    os.makedirs(folder, exist_ok=True)
    for file_name, text in files.items():
        with open(os.path.join(folder, file_name), "w", encoding="ascii") as file:
            file.write(text)
    SimulatedGuest("snp-genoa", clock=datetime.now(timezone.utc)).write(folder)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
