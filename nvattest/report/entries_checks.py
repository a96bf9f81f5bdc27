"""The catalogue's entries for checks: one for every id of ``nvattest.appraisal.catalogue.CHECKS``."""

from __future__ import annotations

from typing import Final

from nvattest.appraisal.catalogue import CHECKS, rim_checks
from nvattest.report.entry import Entry

_COLLECT: Final = "$ nvattest collect-evidence --device all --nonce HEX"
_MODE: Final = "$ nvidia-smi conf-compute -f"
_DOCTOR: Final = "$ nvattest doctor"


def _check(
    key: str, meaning: str, causes: tuple[str, ...], actions: tuple[str, ...], see: tuple[str, ...] = ()
) -> Entry:
    return Entry(
        kind="check", key=key, name=key, title=CHECKS[key].title, meaning=meaning, causes=causes, actions=actions,
        see=see or tuple(dict.fromkeys(str(int(code)) for code in (CHECKS[key].gpu, CHECKS[key].switch))),
    )  # fmt: skip


_OWN = (
    _check(
        "report-format",
        "The report is the device's signed answer: the SPDM request, the measurements, opaque data and a signature. "
        "This check reads it byte by byte. A report that does not read says nothing, so most later checks are skipped.",
        (
            "The file was cut, re-encoded or edited on its way.",
            "The driver is newer than this nvattest: from CUDA 13.5 on, drivers write versioned opaque data (NVDAOD).",
            "GPU and switch evidence were given in each other's place.",
        ),
        (
            "Read the message: it names the byte at which the format breaks.",
            _COLLECT,
            "Update nvattest if the message speaks of an unknown version.",
        ),
    ),
    _check(
        "report-trailing-bytes",
        "Nothing may stand after the report's signature, because nothing signs it. Real captures have a byte there, so "
        "the policy tolerates a few (max_trailing_bytes), which nobody reads.",
        ("The evidence was stored with padding.", "Somebody added bytes to see whether anybody reads them."),
        ("Collect the evidence again, without another program in between.", _COLLECT),
    ),
    _check(
        "chain-format",
        "The certificate chain comes with the report, as PEM text, leaf first. It must be certificates and nothing "
        "else.",
        ("The field holds another text, or was encoded twice.", "The chain was cut at a length limit."),
        (_COLLECT, "Look at the chain: it has one block per certificate, usually five."),
    ),
    _check(
        "chain-path",
        "Each certificate must be signed by the next one, up to NVIDIA's device root, which this program knows by "
        "heart. Names, key usage, algorithms (P-384 with SHA-384) and order all count.",
        (
            "The device is simulated, and its roots were not given.",
            "The evidence holds the chain of another device, or certificates in another order.",
            "Evidence is from a pre-production device that leads to another root.",
        ),
        (
            "The chain tree of this explanation says which certificate breaks the path.",
            "For simulated devices give their roots with --trust-anchors.",
            _COLLECT,
        ),
    ),
    _check(
        "chain-validity",
        "All device certificates must be valid at the time of the verification. NVIDIA's own run until the "
        "year 9999, so "
        "a failure here nearly always means a wrong clock.",
        (
            "The guest's clock is not set yet: early in the boot it may stand in the past.",
            "The time of --at lies before the device was made.",
        ),
        ("$ date -u", "Order the verification after time-sync.target, or give the right time with --at."),
    ),
    _check(
        "report-signature",
        "The report is signed with the private key of the leaf certificate, which never leaves the device. A bad "
        "signature means that the bytes are not what that device signed.",
        (
            "Report and chain are of two different devices; lists put together by hand mix them up easily.",
            "A byte of the report was changed or lost.",
            "The report is genuine but was made with an older key, before a firmware update and reset.",
        ),
        (_COLLECT, "Compare the FWID check: if that fails too, the report belongs to another device."),
        ("508", "606", "fwid"),
    ),
    _check(
        "nonce",
        "You send 32 random bytes and the device signs them. That makes the report an answer to you, now, and no "
        "recording. Evidence without your nonce proves only that the device once existed.",
        (
            "The evidence was collected for another request.",
            "Some services sign a value derived from your nonce instead of the nonce itself.",
            "No nonce was given: the check is then ABSENT.",
        ),
        (
            "Give the nonce that you sent, 64 hexadecimal digits, with --nonce.",
            "The signed nonce is the 32 bytes at offset 4 of the report; compare it with yours.",
            _COLLECT,
        ),
    ),
    _check(
        "architecture",
        "The label of the evidence, the chip in the certificates' names and the chip in the report must be of one "
        "architecture, because it decides where firmware ids stand and which RIMs apply.",
        (
            "The evidence file labels the device wrongly.",
            "The GPU is newer than this nvattest.",
            "The policy names allowed architectures and this is none of them.",
        ),
        ("Correct the label (arch) in the evidence.", "Update nvattest for new hardware.", "$ nvattest version"),
    ),
    _check(
        "fwid",
        "The leaf certificate was issued for exactly one firmware image and carries its digest, the FWID. The report "
        "repeats the digest of the firmware that runs, and the two must be equal. Reports of drivers before R550 and "
        "of NVSwitches (LS10) leave it out: then the certificate alone names it, which the policy's "
        "require_fwid_in_report refuses.",
        (
            "Report and chain are of two devices.",
            "The firmware was replaced after the certificate was issued.",
            "The policy demands a firmware id in the report, and the driver is older than R550.",
        ),
        (
            _COLLECT,
            "Update the driver to R550 or newer where the policy demands it.",
            "If it fails on fresh evidence of one device, take the device out of service and tell NVIDIA.",
        ),
        ("507", "605", "800"),
    ),
    _check(
        "debug",
        "Blackwell certificates state in DICE flags whether the device is in a debug, recovery or not-secure state. "
        "Such a device can be made to say anything. The flags of every certificate of the chain count, alone (TcbInfo) "
        "or in a list (MultiTcbInfo), and so does a driver that says that DevTools mode is on.",
        ("The GPU runs in a developer mode.", "It is an engineering sample.", "Firmware recovery is under way."),
        (
            "$ nvidia-smi conf-compute -d",
            "Switch the GPU to CC mode 'on' on the host and reset it; do not use it in production before.",
            "Hopper certificates carry no such flag: DevTools mode shows in the measurements, or the driver says it.",
        ),
    ),
    _check(
        "chain-revocation",
        "NVIDIA can revoke the certificates above a device. This check asks its OCSP service, a cache or the "
        "bundle about "
        "each of them but the leaf and the root. No answer is not a good answer.",
        (
            "An answer of the bundle or cache is past its signed end (they live about a day).",
            "The guest cannot reach the OCSP service, or a proxy answers from its cache without our nonce.",
            "The clock is wrong, so that every answer looks stale or not yet valid.",
            "The certificate is revoked or on hold.",
        ),
        (
            "$ nvattest bundle inspect BUNDLE",
            "$ nvattest bundle fetch --output BUNDLE",
            "$ nvattest doctor --online",
            "A revoked certificate stays revoked: take the device out of service and ask NVIDIA for the reason.",
        ),
        ("204", "201", "202"),
    ),
    _check(
        "mode",
        "The report says in which mode the GPU works: single pass-through (spt), multi-GPU pass-through (mpt) "
        "or protected PCIe (ppcie), and whether the NVDEC0 engine is on. A policy may name the modes that it allows; "
        "a mode that this version does not know is shown as unknown and is never one of those.",
        ("The driver is newer than this nvattest.", "The policy's allowed_modes does not name the mode of this node."),
        (_MODE, "$ nvidia-smi conf-compute -mgm", "Update nvattest, or the policy if the mode is wanted."),
        ("405", "509"),
    ),
    _check(
        "versions",
        "A genuine device can run an old driver or VBIOS with known faults, and its measurements still match. The "
        "policy can demand minimum versions and refuse single ones. Versions are compared number by number: 550.0.7 "
        "and 550.00.07 are one version.",
        ("The driver or VBIOS was not updated.", "The policy was made stricter before the fleet was updated."),
        ("Compare expected and found; then update the driver or the VBIOS.", "$ nvattest preflight"),
    ),
    _check(
        "hints",
        "Beside the signed report the driver says things about the device: its driver and VBIOS version, whether a "
        "GPU is in protected PCIe mode, whether a switch is locked. They prove nothing, but when they contradict the "
        "signed report something is wrong.",
        (
            "The evidence file was put together from two devices.",
            "The driver was replaced while the programs kept running.",
            "The mode was changed after the report was made.",
        ),
        (_COLLECT, "Restart the guest after a driver update."),
    ),
    _check(
        "reference-values",
        "For some devices NVIDIA publishes no reference manifests that this program reads: Rubin today. Everything up "
        "to the measurements is verified (certificates, signature, nonce, firmware id, debug state, revocation), but "
        "nothing says which firmware is the right one. Such a device is never trusted, whatever the policy says.",
        ("The GPU is a Rubin (GR100).",),
        (
            "Do not trust the device yet; update nvattest when reference values are published.",
            "$ nvattest version",
        ),
    ),
    _check(
        "rim-conflict",
        "Each golden value has one source: the driver RIM or the VBIOS RIM. When both claim an index they do "
        "not belong "
        "together, and a comparison would depend on the order.",
        ("RIMs of different releases were mixed.", "A RIM was edited (its signature then fails too)."),
        ("$ nvattest bundle inspect BUNDLE", "$ nvattest bundle fetch --output BUNDLE"),
    ),
    _check(
        "measurements",
        "The device measured its firmware and its state into up to 64 values. NVIDIA publishes golden values for them, "
        "signed, per driver and per VBIOS release. Each covered value must equal one of its golden alternatives. What "
        "an index stands for is not published.",
        (
            "Many indices differ: DevTools mode, or RIMs of another release.",
            ("Only index 9 (VBIOS) differs: NVIDIA re-issued that VBIOS RIM under the same id and yours is the other "
            "issue; or an H100 in a TDX cloud guest after a reboot (reported as nvtrust 90 and 132)."),
            ("Only index 52 (driver) differs: RTX PRO 6000 after CC mode went on, off and on again "
            "(attestation-sdk 31). "
            "It survives a function-level reset and a guest reboot."),
            "Index 35 differs: it is exempt while NVDEC0 is off, and counts while it is on.",
            "Something really runs that NVIDIA did not release.",
        ),
        (
            "See which indices differ and which RIM covers them: the map of this explanation, or",
            "$ nvattest explain appraisal.json",
            "$ nvidia-smi conf-compute -d",
            "Fetch the RIMs again and verify the same evidence with them.",
            "Index 9: stop and start the guest (a reboot is not enough). Index 52: reboot the host.",
            "Nothing helps: keep the evidence and the bundle, and open a case with NVIDIA.",
        ),
        ("12", "107", "driver-rim-binding", "vbios-rim-binding"),
    ),
    _check(
        "minimum-svn",
        "Newer RIMs demand security version numbers: a number in the signed report must be at least as high. "
        "It refuses "
        "firmware that is genuine but has known faults.",
        ("The firmware of the device is older than the RIM demands.", "The driver is too old to report the number."),
        ("Update the firmware (VBIOS, FSP) of the device.", "Update the driver."),
    ),
    _check(
        "devices-trusted",
        "The platform is trusted only if every device is. This check fails as a consequence: look at the device.",
        ("One of the devices failed.",),
        ("Read the story of the device that is named.",),
    ),
    _check(
        "devices-present",
        "No evidence proves nothing, and a node with seven of eight GPUs is not the node that was expected. "
        "The numbers "
        "are compared with the policy where it names them.",
        (
            "A GPU fell off the bus (Xid 79) or was not passed through.",
            "The driver is not loaded, so that no GPU was found.",
            "The policy's expected_gpus or expected_switches is of another kind of node.",
        ),
        ("$ nvidia-smi -L", _DOCTOR, "$ dmesg | grep -i xid"),
    ),
    _check(
        "devices-distinct",
        "Each device is known by its certified identity. One that appears twice stands in for a device that was not "
        "verified.",
        ("A list repeats one device's evidence.", "Somebody shows a good GPU in the place of a bad one."),
        ("Collect the evidence of all devices in one go.", _COLLECT),
    ),
    _check(
        "one-nonce",
        "All devices of a platform must answer one nonce, so that they were asked at one time by one verifier.",
        ("Evidence of several collections was put together.", "GPUs and switches were asked with different nonces."),
        ("$ nvattest collect-evidence --device all",),
    ),
    _check(
        "one-mode",
        "GPUs of one guest work in one mode. A GPU in another mode was set up differently, or belongs to another node.",
        ("The mode was changed for some GPUs only.", "A GPU of another node is in the list."),
        ("$ nvidia-smi conf-compute -mgm", "Set the mode for all GPUs on the host and reset them."),
    ),
    _check(
        "topology",
        "In protected PCIe mode each GPU signs the identities of the switches that it is linked to, and each "
        "switch those of its GPUs. The two lists must name each other, none missing and none more. Where there is a "
        "switch, or the policy requires a topology, every GPU must also state protected PCIe (its mode flag and its "
        "protected PCIe status) and every switch must state that it is locked: an unlocked switch can still be "
        "rewired. Where only GPUs were collected, the check is skipped.",
        (
            "A device of another node was put in, or one was left out.",
            "Not all 8 GPUs and 4 switches are passed through to the guest.",
            "Some GPUs are in another mode, or the fabric manager has not locked the switches.",
        ),
        (
            "$ nvattest collect-evidence --device all",
            "Pass all GPUs and all switches to the guest, with PPCIE mode on for all of them.",
            "$ nvidia-smi nvlink -s",
        ),
    ),
)  # fmt: skip

_ROLES: Final = (
    ("driver", "driver", "driver version"),
    ("vbios", "VBIOS", "VBIOS version and board"),
    ("bios", "switch BIOS", "BIOS version and board"),
)


def _rim_entries(role: str, word: str, key: str) -> tuple[Entry, ...]:
    available, form, signature, chain, validity, revocation, binding = rim_checks(role)
    fetch = "$ nvattest bundle fetch --output BUNDLE"
    inspect = "$ nvattest bundle inspect BUNDLE"
    return (
        _check(
            available,
            f"The {word} RIM holds NVIDIA's golden values for the {word} that runs. Its id follows from the "
            f"signed report "
            f"({key}). Without it nothing can be compared.",
            (
                f"NVIDIA has not published a RIM for this {key}; fleets that upgrade early meet this.",
                "The bundle was made for another release, or the RIM folder has the file under another name.",
                "The RIM service cannot be reached: that is code 102 or 103, not 104.",
            ),
            (
                "$ nvattest preflight",
                fetch,
                "$ nvattest doctor --online",
                f"Not published: go back to a {key} that has one, and ask NVIDIA.",
            ),
        ),
        _check(
            form,
            "A RIM is a signed XML document (SWID tag with TCG's RIM profile). This program reads one strict "
            "profile: no "
            "DTD, no entities, one signature, known transforms, bounded sizes.",
            ("An error page or a cut file was stored as the RIM.", "The document was edited or re-formatted."),
            (fetch, "Compare the first line of the file: it must be a SoftwareIdentity document."),
        ),
        _check(
            signature,
            "The golden values count only if they are signed with the key of the document's first certificate. "
            "Nothing is "
            "read from a RIM whose signature fails.",
            (
                "The document was changed after it was signed, if only by an editor or a line-ending conversion.",
                "A transfer in text mode altered it.",
            ),
            (fetch, inspect, "Compare its SHA-256 with that of a fresh download."),
        ),
        _check(
            chain,
            "The signer's certificates must lead to NVIDIA's RIM root, which this program knows by heart.",
            (
                "The RIM is a simulated one, and its roots were not given.",
                "The RIM is of a pre-release driver that another root signs.",
            ),
            ("The chain tree of this explanation says where the path breaks.", fetch),
            ("802", signature),
        ),
        _check(
            validity,
            "RIM signers are certified for about two years. The RIM counts only while they are valid at the "
            "time of the "
            "verification.",
            (
                "The RIM is old and NVIDIA has re-issued it under the same id.",
                "The clock of this machine is wrong.",
            ),
            (
                fetch,
                "$ date -u",
                "To judge old evidence, give the time of its collection with --at.",
            ),
        ),
        _check(
            revocation,
            "NVIDIA revokes the signer of a RIM when it withdraws a release, and puts it on hold for pre-release "
            "drivers.",
            (
                f"The {word} release was withdrawn.",
                "Certificate hold: the release is not final.",
                "The answer is stale, or none could be had.",
            ),
            (
                "See the revocation column of the chain tree for the certificate and its reason.",
                f"Revoked: move to another {key}. Do not use this one.",
                fetch,
            ),
            ("204", "201"),
        ),
        _check(
            binding,
            "A genuine RIM of another release would accept the wrong firmware. Version, product, edition and "
            "manufacturer of the RIM must be those of this device.",
            (
                "A RIM was stored under the id of another one.",
                f"The {word} was updated after the bundle was made.",
            ),
            (inspect, fetch),
        ),
    )


CHECK_ENTRIES: Final = (*_OWN, *(entry for role in _ROLES for entry in _rim_entries(*role)))
