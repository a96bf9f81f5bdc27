"""``collect_gpu_evidence`` and ``attest`` of NVIDIA's local GPU verifier, and its command.

``attest`` gives ``(verdict, [["JWT", overall], {"GPU-0": jwt}])``. Tokens are signed with ES384 under a key made for
the call, where NVIDIA's had HS256 under the word ``secret``; give ``params["signing_key"]`` (``nvattest.SigningKey``)
to verify them elsewhere.

``python -m verifier.cc_admin`` has the old options, last line and exit statuses. 0: every GPU is trusted. 1: anything
else. 2: a wrong option.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nvattest._text import joined
from nvattest.compat import (
    InvalidNonceError,
    MigrationWarning,
    MissingParameterError,
    NoEvidenceError,
    _engine,
    migrated,
)
from nvattest.errors import CollectionError, NvattestError
from nvattest.model import DeviceKind

if TYPE_CHECKING:
    import argparse

    from nvattest.appraisal.inputs import Collateral
    from nvattest.appraisal.results import Appraisal
    from nvattest.devices.nvml import NvmlLibrary
    from nvattest.evidence import Evidence

__all__ = [
    "InvalidNonceError", "MigrationWarning", "MissingParameterError", "NoEvidenceError", "attest",
    "collect_gpu_evidence", "collect_gpu_evidence_local", "collect_gpu_evidence_remote", "main",
]  # fmt: skip

REQUIRED = (
    "verbose", "test_no_gpu", "driver_rim", "vbios_rim", "user_mode", "rim_service_url", "allow_hold_cert", "ocsp_url",
    "ocsp_nonce_disabled", "service_key",
)  # fmt: skip


def collect_gpu_evidence(nonce: str, no_gpu_mode: bool = False, ppcie_mode: bool = True) -> list[Any]:
    """Evidence of all GPUs as handles with the old getters.

    Raises:
        InvalidNonceError: not 64 hexadecimal digits.
        CollectionError: the driver gave none, at once and by name; NVIDIA's waited 30 s and said "timed out".
    """
    return _engine.handles(_collect(nonce, no_gpu_mode=no_gpu_mode, ppcie_mode=ppcie_mode))


def collect_gpu_evidence_local(nonce: str, ppcie_mode: bool = True, no_gpu_mode: bool = False) -> list[Any]:
    """The same; the order of the arguments is the old one."""
    return collect_gpu_evidence(nonce, no_gpu_mode, ppcie_mode)


def collect_gpu_evidence_remote(nonce: str, no_gpu_mode: bool = False, ppcie_mode: bool = True) -> list[dict[str, str]]:
    """The same as dictionaries for NRAS."""
    return _engine.dictionaries(_collect(nonce, no_gpu_mode=no_gpu_mode, ppcie_mode=ppcie_mode))


def _collect(nonce: str, *, no_gpu_mode: bool, ppcie_mode: bool) -> tuple[Evidence, ...]:
    return _engine.collect(
        DeviceKind.GPU, _engine.read_nonce(nonce), ppcie_mode=bool(ppcie_mode), no_gpu_mode=bool(no_gpu_mode)
    )


def attest(
    arguments_as_dictionary: Mapping[str, Any], nonce: str, gpu_evidence_list: list[Any]
) -> tuple[bool, list[Any]]:
    """Verify GPUs and sign the result.

    ``arguments_as_dictionary`` has the old keys: ``verbose``, ``test_no_gpu``, ``driver_rim``, ``vbios_rim`` (files,
    or None), ``user_mode``, ``rim_service_url``, ``allow_hold_cert`` (None leaves it to ``NV_ALLOW_HOLD_CERT``),
    ``ocsp_url``, ``ocsp_nonce_disabled``, ``service_key``, and optionally ``claims_version``. Without ``user_mode`` the
    ready state of the machine's GPUs is set. They become ready only where the evidence is that of all GPUs of this
    machine, compared by their certificates before and after; where it is trusted under NVIDIA's anchors (simulated
    GPUs: under a simulation's); and where no certificate on hold counts because of the environment alone. An error of
    the verification sets them not ready.

    Raises:
        InvalidNonceError, MissingParameterError, NoEvidenceError: before anything else.
        NvattestError: settings that cannot be used, or a ready state that cannot be set.
    """
    value, params = _engine.read_nonce(nonce), arguments_as_dictionary
    missing = [name for name in REQUIRED if name not in params]
    if missing:
        raise MissingParameterError(
            f"the parameters have no {', '.join(missing)}", hint=f"they need {', '.join(REQUIRED)}"
        )
    version = _engine.check_claims_version(params.get("claims_version", _engine.CLAIMS_VERSIONS[0]))
    items = _engine.evidence_of(gpu_evidence_list, DeviceKind.GPU, value)
    settings = _engine.Settings(
        service_key=params["service_key"],
        rim_url=params["rim_service_url"],
        ocsp_url=params["ocsp_url"],
        # Only None leaves it to NV_ALLOW_HOLD_CERT: a caller's no is final.
        allow_hold_cert=None if params["allow_hold_cert"] is None else params["allow_hold_cert"] is True,
        ocsp_nonce_disabled=params["ocsp_nonce_disabled"] is True,
        claims_version=version,
    )
    if settings.ocsp_nonce_disabled:
        migrated(_engine.NO_NONCE)
    sets = not params["user_mode"] and not params["test_no_gpu"]
    try:
        result, appraisal, held = _engine.verify_locally(
            items,
            nonce=value,
            settings=settings,
            key=params.get("signing_key")
            or _engine.new_key(
                "the token is signed with ES384 under a key made for this call. NVIDIA's was signed with HS256 under "
                "the word 'secret', so that anyone could write one."
            ),
            known=_rims(params, items),
        )
    except BaseException:
        # Nothing was decided, so nothing may be ready.
        if sets:
            _take_away()
        raise
    try:
        # Before anything is printed: a reader of stdout that has gone must not keep the GPUs as they were.
        if sets:
            _set_ready(appraisal, items, held=held if settings.hold_by_environment else ())
    finally:
        if params["verbose"]:
            for line in result.lines:
                print(joined([line]), file=sys.stdout)
    return result.trusted, result.token


def _rims(params: Mapping[str, Any], items: tuple[Evidence, ...]) -> Collateral | None:
    """RIM files that the caller names. NVIDIA's verifier opened an empty path for ``driver_rim``."""
    from nvattest.appraisal.inputs import Collateral, RimAnswer, Source
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.folders import read_rim_file
    from nvattest.collateral.gather import rim_ids_of

    paths = {"_DRIVER_": str(params["driver_rim"] or ""), "_VBIOS_": str(params["vbios_rim"] or "")}
    named = {word: read_rim_file(path) for word, path in paths.items() if path}
    if not named:
        return None
    rims = {}
    for rim_id in rim_ids_of(Verifier().read(items)):
        for word, content in named.items():
            if word in rim_id:
                rims[rim_id] = RimAnswer(id=rim_id, content=content, source=Source.FILE, origin=paths[word])
    return Collateral(rims=rims) if rims else None


def _set_ready(appraisal: Appraisal, items: Sequence[Evidence], *, held: Sequence[str] = ()) -> None:
    """Set the ready state. ``held`` are the devices that are trusted because the environment says so."""
    from nvattest._system import device_digest
    from nvattest.devices.nvml import NvmlLibrary
    from nvattest.devices.state import TrustedPlatform, read_state, set_not_ready, set_ready

    with NvmlLibrary.open() as library:
        fit = _anchors_fit(appraisal)
        seen = device_digest()
        if appraisal.trusted and fit and not held and _of_this_machine(items, library):
            try:
                set_ready(library, TrustedPlatform(appraisal))
                # The driver sets ready whatever is there when it is asked.
                if device_digest() != seen or not _of_this_machine(items, library):
                    raise CollectionError(
                        "the GPUs changed while they were set ready; they are not ready again",
                        code="devices-changed",
                        hint="collect their evidence again and attest what is there now",
                    )
            except BaseException:
                set_not_ready(library)
                raise
            return
        set_not_ready(library)
        if appraisal.trusted and not fit:
            migrated(
                f"the GPUs stay not ready: they were judged under the trust anchors {appraisal.anchors!r}, named by "
                "NVATTEST_TRUST_ANCHORS. The environment cannot make real GPUs ready."
            )
        elif appraisal.trusted and held:
            migrated(
                f"the GPUs stay not ready: a certificate of {', '.join(held)} is on hold, and only NV_ALLOW_HOLD_CERT "
                "accepts that. The environment cannot make GPUs ready; say --allow_hold_cert where it is meant."
            )
        elif appraisal.trusted:
            migrated(
                f"the GPUs stay not ready: the evidence of {len(items)} GPUs is not that of this machine's GPUs, and "
                "the ready state is one switch for all."
            )
        elif read_state(library).dev_tools:
            migrated("the GPUs stay not ready. NVIDIA's verifier set them ready after a failure in DevTools mode.")


def _take_away() -> None:
    from nvattest.devices.nvml import NvmlLibrary
    from nvattest.devices.state import set_not_ready

    # The first error says more than that of a driver that does not answer.
    with suppress(CollectionError), NvmlLibrary.open() as library:
        set_not_ready(library)


def _anchors_fit(appraisal: Appraisal) -> bool:
    """NVIDIA's anchors; or every device is a simulated one, whose certificates lead to a simulated root.

    No real GPU has such certificates, and these are compared with the driver's. Own RIMs for real GPUs, which other
    anchors would allow too, are not accepted.
    """
    from nvattest.pki.anchors import NVIDIA_ANCHORS

    if appraisal.anchors == NVIDIA_ANCHORS.label:
        return True
    chains = [device.chain.validated for device in appraisal.devices if device.chain is not None]
    simulated = [chain.path_ok and chain.anchor is not None and chain.anchor.simulated for chain in chains]
    return len(simulated) == len(appraisal.devices) and all(simulated)


def _of_this_machine(items: Sequence[Evidence], library: NvmlLibrary) -> bool:
    """Whether these are this machine's GPUs, all of them: the evidence comes from the caller, who may have any."""
    from nvattest.devices.collect import collect_gpus

    try:
        present = collect_gpus(os.urandom(32), library=library)
    except CollectionError:
        return False
    return sorted(item.certificate_chain for item in items) == sorted(item.certificate_chain for item in present)


def main() -> int:
    """Collect from this machine's GPUs, verify, set the ready state unless ``--user_mode``, and print the result."""
    from nvattest._system import open_closed_streams

    open_closed_streams()
    return _main(sys.argv[1:])


def _main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    params = {**vars(options), "verbose": True, "allow_hold_cert": options.allow_hold_cert or None}
    nonce = options.nonce or _engine.new_nonce().hex()
    try:
        try:
            if options.rim_root_cert:
                print("--rim_root_cert has no effect, as before: NVIDIA's roots are built in", file=sys.stderr)
            trusted, _ = attest(params, nonce, collect_gpu_evidence(nonce, options.test_no_gpu, True))
        except NvattestError as error:
            trusted = False
            print(joined([str(error), *([f"  {error.hint}"] if error.hint else [])]), file=sys.stderr)
            # The line that scripts look for; attest prints it where it came to a verdict.
            print("GPU Attestation failed.")
        sys.stdout.flush()
    except OSError as error:
        # Errors of files are those of the package; this is stdout, whose reader went away or whose disk is full.
        from nvattest._system import give_up_stdout

        give_up_stdout()
        print(f"the result could not be written: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0 if trusted else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    import argparse

    parser = argparse.ArgumentParser(prog="verifier.cc_admin", allow_abbrev=False)
    parser.add_argument("-v", "--verbose", action="store_true", help="accepted; the steps are printed in any case")
    parser.add_argument("--test_no_gpu", action="store_true", help="a simulated GPU, which is refused")
    parser.add_argument("--driver_rim", metavar="FILE", help="the driver's RIM, instead of asking the service")
    parser.add_argument("--vbios_rim", metavar="FILE", help="the same for the VBIOS")
    parser.add_argument("--user_mode", action="store_true", help="leave the ready state of the GPUs alone")
    parser.add_argument("--allow_hold_cert", action="store_true", help="accept certificates on hold")
    parser.add_argument("--service_key", metavar="KEY", help="key for NVIDIA's services (better in the environment)")
    parser.add_argument("--nonce", metavar="HEX", help="64 hexadecimal digits; random by default")
    parser.add_argument("--rim_root_cert", metavar="FILE", help="accepted and not used, as before")
    parser.add_argument("--rim_service_url", metavar="URL")
    parser.add_argument("--ocsp_url", metavar="URL")
    parser.add_argument("--ocsp_nonce_disabled", action="store_true", help="accept revocation answers without a nonce")
    parser.add_argument("--claims_version", choices=_engine.CLAIMS_VERSIONS, default=_engine.CLAIMS_VERSIONS[0])
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
