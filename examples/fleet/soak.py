"""The proof of ``ray_fleet.py``: thousands of simulated nodes on a local cluster of two workers, one of them killed.

    python soak.py --nodes 10000

It prints what it did as JSON and exits with 1 unless each node has exactly one answer, in order, and the right one:
every hundredth node answers another nonce than it was asked with and must not be trusted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import ray
from ray_fleet import Worker, judge_on_cluster

from nvattest.fleet import BatchSettings
from nvattest.testing import SimulatedFleet

ODD = 100


class Mortal(Worker):
    """A worker that dies of SIGKILL, as one that is out of memory does, the first time that it meets a certain node."""

    def __init__(self, settings: BatchSettings, contents: Sequence[bytes], grave: str, victim: bytes) -> None:
        super().__init__(settings, contents)
        self._grave = grave
        self._victim = victim

    def judge(self, lines: list[bytes]) -> list[str]:
        if any(self._victim in line for line in lines) and not os.path.exists(self._grave):
            with open(self._grave, "w", encoding="ascii") as file:
                file.write(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().judge(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--backend", default="cryptography", choices=("cryptography", "aws-lc"))
    parser.add_argument("--grave", required=True, help="a file that does not exist: who was killed is written to it")
    options = parser.parse_args()
    grave, victim = os.path.abspath(options.grave), f'"node-{options.nodes // 2}"'.encode()

    fleet = SimulatedFleet(options.nodes)
    # One file holds the answers about some 8000 GPUs; a folder is at its path on every machine.
    bundle = tempfile.mkdtemp(prefix="nvattest-soak-")
    fleet.write_bundle(bundle)
    settings = BatchSettings(
        bundles=(bundle,), anchors=fleet.platform.anchors_pem, at=fleet.platform.time, backend=options.backend
    )

    def lines() -> Iterator[bytes]:
        for index in range(options.nodes):
            line = fleet.line(index)
            if index % ODD == ODD - 1:
                line = line.replace(fleet.nonce(index).hex().encode(), bytes(32).hex().encode())
            yield line

    class Soaked(Mortal):
        def __init__(self, settings: BatchSettings, contents: Sequence[bytes]) -> None:
            super().__init__(settings, contents, grave, victim)

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": _search_path()})
    start = time.perf_counter()
    answers = [json.loads(text) for text in judge_on_cluster(lines(), settings, actors=2, worker=Soaked)]
    seconds = time.perf_counter() - start
    ray.shutdown()

    expected = [(f"node-{index}", index % ODD != ODD - 1) for index in range(options.nodes)]
    right = [(answer["id"], answer["trusted"]) for answer in answers] == expected
    print(
        json.dumps(
            {
                "nodes": options.nodes,
                "answers": len(answers),
                "trusted": sum(answer["trusted"] for answer in answers),
                "each_once_in_order_and_right": right,
                "a_worker_was_killed": os.path.exists(grave),
                "seconds": round(seconds, 1),
                "backend": options.backend,
            }
        )
    )
    return 0 if right and os.path.exists(grave) else 1


def _search_path() -> dict[str, str]:
    # The workers import ray_fleet from this folder, wherever the soak was started from.
    here = os.path.dirname(os.path.abspath(__file__))
    return {"PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))}


if __name__ == "__main__":
    sys.exit(main())
