"""The library in ten lines: evidence and a bundle in, an appraisal out. No network, no driver.

    python library.py FOLDER

with the files that simulated_files.py writes. With real devices leave ``anchors`` and ``at`` out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nvattest


def main(folder: Path) -> int:
    appraisal = nvattest.verify(
        (folder / "gpu.json").read_bytes(),
        collateral=(folder / "bundle.json").read_bytes(),
        nonce=(folder / "nonce").read_text(),
        at=nvattest.VerificationTime.parse((folder / "clock").read_text()),
        anchors=nvattest.trust_anchors_from_pem((folder / "roots.pem").read_bytes()),
    )
    for label, check in appraisal.failures:
        print(f"{label}: {check.spec.title}: {check.detail}")
    print("trusted" if appraisal.trusted else "not trusted", "(simulated)" if appraisal.simulated else "")
    return appraisal.result_code.exit_status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
