"""A simulated guest: the CPU's side of a confidential virtual machine, with the PKI of Intel or AMD behind it.

    guest = SimulatedGuest("snp-genoa")
    quote = guest.quote(report_data)                 # 64 bytes of your own
    anchors, collateral = guest.anchors(), guest.collateral()

Its root is in no default trust anchors, its certificates say that they are a simulation, and so do results under it.
What a guest can lie about is in ``GUEST_LIES``: ``SimulatedGuest("tdx", lies=["guest:out-of-date"])``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nvattest._text import with_suggestion
from nvattest.errors import InputError
from nvattest.tee.collateral import TdxCollateral
from nvattest.testing.certificates import KeyRing, pem
from nvattest.testing.cpu_amd import GENERATIONS, AmdGuest
from nvattest.testing.cpu_intel import BODIES, IntelGuest
from nvattest.testing.lies import Lie, Told, parse_fault
from nvattest.testing.platform import instant, write_files

if TYPE_CHECKING:
    from nvattest.pki.anchors import CpuAnchors
    from nvattest.tee.collateral import CpuCollateral
    from nvattest.tee.tsm import TeeQuote
    from nvattest.testing.cpu_intel import Served

GUESTS: Mapping[str, str] = {
    "tdx": "a trust domain of TDX 1.0, a quote of version 4",
    "tdx-v5": "a trust domain of TDX 1.5, a quote of version 5",
    "tdx-v5-ex": "the same with the extended report (885 bytes)",
    "snp-milan": "an SNP guest on Milan, a report of version 2, endorsed by its chip's VCEK",
    "snp-genoa": "the same on Genoa, version 3",
    "snp-siena": "the same on Siena, which shares Genoa's root",
    "snp-turin": "the same on Turin, version 5, with an FMC and another order of its TCB",
    "snp-milan-vlek": "an SNP guest whose report a cloud provider's VLEK signs; also for genoa, siena and turin",
}


_REPORT_DATA = 64


class SimulatedGuest:
    """One guest with its CPU. It does not change afterwards.

    Args:
        kind: one of ``GUESTS``.
        seed: everything random comes from it; the RSA keys of AMD's authorities depend on their name alone.
        clock: the instant around which everything honest is valid (``DEFAULT_CLOCK``); it has a time zone.
        lies: faults of the guest, as :class:`Lie` or as text such as ``guest:debug``.

    Attributes:
        measurement: MRTD or MEASUREMENT (48 bytes).
        registers: RTMR 0 to 3; none on AMD.
        provider: the kernel's name of the quote's provider.
        root: the maker's root certificate (DER).
        auxiliary: what the host puts beside the quote: a table of certificates on AMD, None on Intel.

    Raises:
        InputError: no such guest, a clock without a time zone, or a lie that would change nothing here.
    """

    def __init__(
        self, kind: str = "tdx", *, seed: int = 0, clock: datetime | None = None, lies: Iterable[Lie | str] = ()
    ) -> None:
        self.kind = kind
        self.clock = instant(clock, "guest")
        self.lies = tuple(lie if isinstance(lie, Lie) else parse_fault(lie) for lie in lies)
        self._told = Told.by(self.lies, "guest")
        maker, _, model = kind.partition("-")
        generation, _, endorsement = model.partition("-")
        keys = KeyRing(seed)
        self._guest: AmdGuest | IntelGuest
        if kind in BODIES:
            self._check_lies("tdx")
            self._guest = IntelGuest(kind, keys, self.clock, self._told)
        elif maker == "snp" and generation in GENERATIONS and endorsement in ("", "vlek"):
            self._check_lies("snp")
            self._guest = AmdGuest(generation, endorsement or "vcek", keys, self.clock, self._told)
        else:
            raise InputError(
                f"no such guest: {kind[:60]!r}",
                code="platform",
                hint=with_suggestion(kind, GUESTS, f"guests are {', '.join(GUESTS)}"),
            )
        self.measurement, self.registers = self._guest.measurement, self._guest.registers
        self.provider, self.root = self._guest.provider, self._guest.root
        self.auxiliary = self._guest.auxiliary

    def quote(self, report_data: bytes) -> bytes:
        """The raw quote over 64 bytes, signed now.

        Raises:
            InputError: the report data has another size.
        """
        if len(report_data) != _REPORT_DATA:
            raise InputError(f"report data has exactly {_REPORT_DATA} bytes", code="report-data")
        told = self._told
        if (other := told.get("report-data")) is not None:
            given = bytes.fromhex(other)[:_REPORT_DATA].ljust(_REPORT_DATA, b"\0")
            report_data = given if other else bytes(byte ^ 0xFF for byte in report_data)
        # Of AMD's signature 48 bytes are used, of Intel's 64.
        at = self._guest.signature_at
        return told.on_the_way(self._guest.quote(report_data), signature=range(at, at + 48))

    def take_quote(self, report_data: bytes) -> TeeQuote:
        """The same with what the kernel says beside it, as ``tee.tsm.take_quote`` gives it."""
        from nvattest.tee.tsm import TeeQuote

        return TeeQuote(
            provider=self.provider,
            quote=self.quote(report_data),
            auxiliary=self.auxiliary,
            report_data=report_data,
            generation=1,
        )

    def collateral(self) -> CpuCollateral:
        """What Intel's or AMD's service gives for this machine."""
        return self._guest.collateral()

    def anchors(self) -> CpuAnchors:
        """The simulated root in the place of its maker's; it says so."""
        from nvattest.pki.anchors import cpu_anchors_from_der

        if self.provider == "tdx_guest":
            return cpu_anchors_from_der(intel=self.root, amd={}, label="simulated")
        generation = self.kind.split("-")[1]
        return cpu_anchors_from_der(
            amd={"genoa" if generation == "siena" else generation: self.root}, label="simulated"
        )

    def cpu_policy(self) -> bytes:
        """A CPU policy (JSON) that counts this guest alone, as it would be without its lies."""
        table = "tdx" if self.provider == "tdx_guest" else "snp"
        header = {"format": "nvattest-cpu-policy", "version": 1, "kinds": [table]}
        return json.dumps({**header, table: self._guest.demands}, indent=1).encode() + b"\n"

    def write(self, folder: str | os.PathLike[str]) -> list[str]:
        """Write what a relying party needs besides the quote: the maker's collateral, its root, and a CPU policy.

        Returns the paths written: ``cpu-collateral.json`` or ``.pem``, ``cpu-root.pem``, ``cpu-policy.json``. Files of
        the same name are overwritten.

        Raises:
            OSError: the folder cannot be made or written.
        """
        collateral = self.collateral()
        if isinstance(collateral, TdxCollateral):
            files = {"cpu-collateral.json": collateral.text.encode()}
        else:
            lists = (x509.load_der_x509_crl(der).public_bytes(Encoding.PEM) for der in collateral.crls)
            files = {"cpu-collateral.pem": pem(collateral.certificates) + b"".join(lists)}
        files |= {"cpu-root.pem": pem([self.root]), "cpu-policy.json": self.cpu_policy()}
        return write_files(folder, files)

    def serve(self, path: str, query: Mapping[str, str]) -> Served | None:
        """The answer of its maker's service to a GET, as ``Services`` gives it; None where it has nothing there."""
        return self._guest.serve(path, query)

    def _check_lies(self, maker: str) -> None:
        for lie in self.lies:
            chipless = lie.name == "wrong-chip" and self.kind.endswith("vlek")
            if lie.target != "guest" or lie.spec.only not in ("", maker) or chipless:
                raise InputError(
                    f"{str(lie)!r} would change nothing here", code="fault-target", hint=f"this is a guest: {self.kind}"
                )
            if lie.position is not None:
                # A root of AMD's is only compared with the pinned one, and its lists name authorities alone.
                most = 1 if maker == "snp" or lie.name == "revoked" else 2
                least = 1 if maker == "snp" and lie.name == "revoked" else 0
                if not least <= lie.position <= most:
                    raise InputError(
                        f"nothing would change at that certificate: {str(lie)!r}",
                        code="fault-argument",
                        hint=f"{lie.name} is for the positions {least} to {most} of this guest",
                    )
