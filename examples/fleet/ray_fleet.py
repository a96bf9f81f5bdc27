"""Judge the evidence of more platforms than one machine can: ``nvattest.fleet.Judge`` on a Ray cluster.

    python ray_fleet.py --input nodes.jsonl --output answers.jsonl --bundle bundle.json

The lines, the answers and their order are those of ``nvattest verify-batch``. Each actor keeps one Judge, so that RIMs,
upper certificates and revocation answers are verified once per process. An actor that dies is started again by Ray and
its chunk is judged again; a chunk that kills it time after time is answered line by line, and the line at fault as an
error. Judging has no side effect, so that doing it twice changes nothing: there is exactly one answer for each line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from nvattest.fleet import BatchSettings, Judge
from nvattest.model import VerificationTime
from nvattest.session import now

CHUNK = 64
AHEAD = 4  # chunks in flight for each actor: enough to keep it busy, and all that is in memory


class Worker:
    """What runs in the cluster: one Judge for each process. ``contents`` are the bundles of the machine that asks."""

    def __init__(self, settings: BatchSettings, contents: Sequence[bytes]) -> None:
        self._judge = Judge(settings, contents=contents)

    def judge(self, lines: list[bytes]) -> list[str]:
        return [self._judge.judge(line) for line in lines]


class _Chunk:
    """Some lines, and the actor's promise to answer them."""

    def __init__(self, lines: list[bytes], actors: Iterator[Any]) -> None:
        self.lines = lines
        self.answers = next(actors).judge.remote(lines)


def judge_on_cluster(
    lines: Iterable[bytes], settings: BatchSettings, *, actors: int, worker: type[Worker] = Worker
) -> Iterator[str]:
    """One answer per line, in the order of the lines. ``ray.init`` comes first; ``actors`` processes are asked for.

    Raises:
        NvattestError: the bundle or the anchors cannot be read; told here, once, instead of by every worker.
    """
    contents = Judge(settings).contents
    remote = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=2)(worker)
    shared = ray.put(settings), ray.put(contents)  # once for each machine; held here for actors that start again
    pool = [remote.remote(*shared) for _ in range(actors)]
    turns = _turns(pool)
    source = iter(lines)
    waiting: deque[_Chunk] = deque()
    try:
        while True:
            while len(waiting) < actors * AHEAD and (part := list(islice(source, CHUNK))):
                waiting.append(_Chunk(part, turns))
            if not waiting:
                return
            chunk = waiting.popleft()
            try:
                yield from ray.get(chunk.answers)
            except RayActorError:
                yield from _one_by_one(chunk.lines, turns)
    finally:
        for actor in pool:
            ray.kill(actor)


def _turns(pool: list[Any]) -> Iterator[Any]:
    while True:
        yield from pool


def _one_by_one(lines: list[bytes], turns: Iterator[Any]) -> Iterator[str]:
    for line in lines:
        try:
            yield from ray.get(next(turns).judge.remote([line]))
        except (RayActorError, RayTaskError):
            yield _died(line)


def _died(line: bytes) -> str:
    try:
        document = json.loads(line)
    except ValueError:
        document = None
    return json.dumps(
        {
            "id": document.get("id") if isinstance(document, dict) else None,
            "trusted": False,
            "result_code": 2,
            "result_message": "Internal Error",
            "devices": [],
            "error": {"code": "worker-died", "message": "the worker process died on this line again and again"},
        },
        separators=(",", ":"),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--bundle", required=True, help="a file, or a folder that every machine has at this path")
    parser.add_argument("--trust-anchors")
    parser.add_argument("--at", help="for lines without a time of their own; now by default")
    parser.add_argument("--backend", default="cryptography", choices=("cryptography", "aws-lc"))
    parser.add_argument("--address", help="of the Ray cluster; a local one is started where it is not given")
    parser.add_argument("--actors", type=int, default=0, help="processes; one per CPU of the cluster by default")
    options = parser.parse_args()

    anchors = None
    if options.trust_anchors:
        with open(options.trust_anchors, "rb") as file:
            anchors = file.read()
    settings = BatchSettings(
        bundles=(os.path.abspath(options.bundle),),
        anchors=anchors,
        at=VerificationTime.parse(options.at) if options.at else now(),
        backend=options.backend,
    )
    ray.init(address=options.address, log_to_driver=False)
    actors = options.actors or max(1, int(ray.cluster_resources().get("CPU", 1)))
    with open(options.input, "rb") as source, open(options.output, "w", encoding="utf-8") as output:
        lines = (line.strip() for line in source if line.strip())
        output.writelines(answer + "\n" for answer in judge_on_cluster(lines, settings, actors=actors))
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
