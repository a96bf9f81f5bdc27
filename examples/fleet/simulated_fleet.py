"""A fleet without GPUs: its nodes as lines for verify-batch, and NVIDIA's services while a command runs.

    python simulated_fleet.py FOLDER NODES -- COMMAND ...

writes nodes.jsonl and roots.pem into the folder, and runs the command with the services' addresses and the roots in its
environment, where nvattest reads them. Each node has a GPU of its own. Nothing here passes for real: the roots are
simulated, and every output says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timezone

from nvattest.testing import SimulatedFleet
from nvattest.testing.services import Services, wall_clock


def main(folder: str, nodes: int, command: list[str]) -> int:
    fleet = SimulatedFleet(nodes, clock=datetime.now(timezone.utc))
    os.makedirs(folder, exist_ok=True)
    roots = os.path.join(folder, "roots.pem")
    with open(roots, "wb") as file:
        file.write(fleet.platform.anchors_pem)
    with open(os.path.join(folder, "nodes.jsonl"), "wb") as file:
        file.writelines(fleet.line(index) + b"\n" for index in range(nodes))
    with Services(fleet.platform, now=wall_clock) as services:
        variables = {
            "NVAT_RIM_SERVICE_BASE_URL": services.rim_url,
            "NVAT_OCSP_BASE_URL": services.ocsp_url,
            "NVATTEST_TRUST_ANCHORS": os.path.abspath(roots),
        }
        return subprocess.run(command, env=os.environ | variables, check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) < 5 or sys.argv[3] != "--":
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[4:]))
