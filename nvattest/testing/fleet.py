"""Many simulated nodes for the price of their own signatures: one GPU each, all below the roots of one platform.

    fleet = SimulatedFleet(10_000)
    lines = [fleet.line(index) for index in range(10_000)]   # for nvattest verify-batch
    bundle = fleet.bundle()

Each node has keys, certificates, a boot ROM revocation answer and a report of its own, so that a verifier has never
seen it. A node costs two or three milliseconds and is made when it is asked for; the same seed gives the same nodes.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from nvattest.testing.certificates import Certificate
from nvattest.testing.device import SimulatedDevice, chain_text
from nvattest.testing.keys import derive_bytes
from nvattest.testing.lies import Told
from nvattest.testing.platform import Platform

if TYPE_CHECKING:
    from nvattest.appraisal.inputs import Collateral, OcspAnswer
    from nvattest.evidence import Evidence

__all__ = ["SimulatedFleet"]


class SimulatedFleet:
    """``size`` nodes of the kind of ``hopper-1``; ``clock`` as for :meth:`Platform.build`."""

    def __init__(self, size: int, *, seed: int = 0, clock: datetime | None = None) -> None:
        self.size = size
        self.platform = Platform.build("hopper-1", seed=seed, clock=clock)
        self._chains: dict[int, tuple[Certificate, ...]] = {}

    def nonce(self, index: int) -> bytes:
        """The nonce that node ``index`` is asked with (32 bytes)."""
        return derive_bytes(self.platform.seed, f"fleet nonce {index}", 32)

    def device(self, index: int) -> SimulatedDevice:
        """The GPU of node ``index``.

        Raises:
            IndexError: there is no such node.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"the fleet has {self.size} nodes; there is no node {index}")
        chain = self._chain(index)
        return replace(
            self.platform.gpus[0],
            chain_pem=chain_text(chain, self.platform.gpus[0].kind, Told(())),
            certificates=chain,
            key=chain[0].key,
            pdi=self._pdi(index).hex().upper(),
            salt=derive_bytes(self.platform.seed, f"fleet responder {index}", 32),
        )

    def evidence(self, index: int) -> tuple[Evidence, ...]:
        """The evidence of node ``index``, signed now over its nonce."""
        return (self.device(index).evidence(self.nonce(index)),)

    def line(self, index: int) -> bytes:
        """The line of node ``index`` for ``nvattest verify-batch``, without a line break; its id is ``node-INDEX``."""
        nonce = self.nonce(index)
        evidence = [self.device(index).evidence_record(nonce)]
        document = {"id": f"node-{index}", "nonce": nonce.hex(), "evidence": evidence}
        return json.dumps(document, separators=(",", ":")).encode()

    def collateral(self) -> Collateral:
        """The RIMs and the revocation answers of all nodes."""
        chains = (self._chain(index) for index in range(self.size))
        shared = self.platform.collateral()
        own = (replace(shared.ocsp[0], content=self.platform.ocsp_about(chain[1])) for chain in chains)
        return replace(shared, ocsp=(*shared.ocsp, *own))

    def bundle(self) -> bytes:
        """The same as the content of a bundle file, which holds the answers about some 8000 nodes."""
        from nvattest.collateral.bundle import dump_bundle

        return json.dumps(dump_bundle(self.collateral())).encode()

    def write_bundle(self, folder: str) -> None:
        """The same as a bundle in a folder, for any number of nodes."""
        from nvattest.collateral.bundle import by_serial, shard_count, shard_of, write_folder

        collateral = self.collateral()
        answers = by_serial(collateral.ocsp)
        shards = shard_count(len(collateral.ocsp))
        places: list[list[OcspAnswer]] = [[] for _ in range(shards)]
        for serial, about in answers.items():
            places[shard_of(serial, shards)] += about
        write_folder(folder, collateral.rims, shards, places.__getitem__)

    def _pdi(self, index: int) -> bytes:
        return derive_bytes(self.platform.seed, f"fleet pdi {index}", 8)

    def _chain(self, index: int) -> tuple[Certificate, ...]:
        known = self._chains.get(index)
        if known is None:
            known = self.platform.certify(f"fleet gpu {index}", self._pdi(index))
            self._chains[index] = known
        return known
