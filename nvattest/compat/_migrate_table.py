"""What becomes of each name of the old packages, as data for ``nvattest migrate check``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Verdict(Enum):
    """SAME: works unchanged. CHANGED: works and means something else. DECISION: somebody has to decide."""

    SAME = "same"
    CHANGED = "changed"
    DECISION = "decision"


@dataclass(frozen=True, slots=True)
class Entry:
    """A verdict and why."""

    verdict: Verdict
    message: str = ""


_SAME: Final = Entry(Verdict.SAME)


MODULES: Final[Mapping[str, Entry]] = {
    "nv_attestation_sdk": _SAME,
    "nv_attestation_sdk.attestation": _SAME,
    "nv_attestation_sdk.utils": Entry(Verdict.DECISION, "no such module: use Attestation.set_allow_hold_cert()"),
    "nv_attestation_sdk.gpu": Entry(
        Verdict.DECISION, "an inner module of the SDK; use attestation, or nvattest itself"
    ),
    "nv_attestation_sdk.verifiers": Entry(
        Verdict.DECISION, "an inner module of the SDK; use attestation, or nvattest itself"
    ),
    "verifier": _SAME,
    "verifier.cc_admin": _SAME,
    "verifier.exceptions": Entry(Verdict.DECISION, "no such module: catch nvattest.NvattestError"),
    "verifier.config": Entry(Verdict.DECISION, "no process-wide settings: give them as parameters"),
    "verifier.rim": Entry(Verdict.DECISION, "an inner module of the verifier; use nvattest.verify"),
    "verifier.attestation": Entry(Verdict.DECISION, "an inner module of the verifier; use nvattest.verify"),
    "verifier.nvml": Entry(Verdict.DECISION, "an inner module of the verifier; use nvattest.devices"),
    "ppcie": Entry(Verdict.DECISION, "use: nvattest attest --device all (a closed topology, and an exit status)"),
    "nv_ppcie_verifier": Entry(Verdict.DECISION, "use: nvattest attest --device all"),
}

_UNCHANGED: Final = (
    "set_name", "get_name", "get_nonce", "set_service_key", "get_service_key", "set_nonce_server", "get_nonce_server",
    "get_ocsp_nonce_disabled", "get_claims_version", "get_verifiers", "clear_verifiers", "get_verifier_by_name",
    "add_verifier", "set_token", "reset",
)  # fmt: skip

METHODS: Final[Mapping[str, Entry]] = {
    **dict.fromkeys(_UNCHANGED, _SAME),
    "set_nonce": Entry(Verdict.SAME, "anything but 64 hexadecimal digits is refused at once (ValueError)"),
    "set_claims_version": Entry(Verdict.SAME, "anything but 2.0 and 3.0 is refused at once (ValueError)"),
    "set_ocsp_nonce_disabled": Entry(
        Verdict.CHANGED, "answers without a nonce count only inside their validity window, and the token says so"
    ),
    "get_evidence": Entry(
        Verdict.CHANGED, "a failure is raised (nvattest.CollectionError); it was an empty list or a tuple"
    ),
    "attest": Entry(
        Verdict.CHANGED,
        "True only if every device is trusted by every verifier; no verifier or no evidence is raised (ValueError)",
    ),
    "get_token": Entry(
        Verdict.CHANGED, "signed with ES384 under the instance's key, not with HS256 under a word that everybody knows"
    ),
    "decode_token": Entry(Verdict.CHANGED, "gives what the token says, unverified; it only logged it"),
    "validate_token": Entry(
        Verdict.CHANGED,
        "verifies signatures, digests, nonce and number of devices too; a token that must not be believed is raised "
        "(TokenRefusedError, a jwt.InvalidTokenError), a wrong policy too (KeyError, JSONDecodeError)",
    ),
}

# Names that say enough even where the receiver is not known to be a client.
DISTINCT_METHODS: Final = frozenset(
    {"add_verifier", "validate_token", "set_claims_version", "set_ocsp_nonce_disabled", "get_verifiers"}
)

FUNCTIONS: Final[Mapping[str, Entry]] = {
    "verifier.cc_admin.collect_gpu_evidence": Entry(Verdict.SAME, "certificates are cryptography's, not pyOpenSSL's"),
    "verifier.cc_admin.collect_gpu_evidence_local": Entry(
        Verdict.SAME, "certificates are cryptography's, not pyOpenSSL's"
    ),
    "verifier.cc_admin.collect_gpu_evidence_remote": _SAME,
    "verifier.cc_admin.attest": Entry(
        Verdict.CHANGED, "the token is signed with ES384 under a key for the call; True only if every GPU is trusted"
    ),
    "verifier.cc_admin.main": Entry(
        Verdict.CHANGED, "exit statuses as before; ready only for this machine's GPUs, all of them trusted"
    ),
    "nv_attestation_sdk.utils.config.set_allow_hold_cert": Entry(
        Verdict.DECISION, "use Attestation.set_allow_hold_cert()"
    ),
}

NAMED_IN_A_TEXT: Final = Entry(
    Verdict.DECISION, "a module of the old SDK is named in a text (import_module, python -m): change it by hand"
)
ON_THE_CLASS: Final = Entry(
    Verdict.CHANGED, "a call on the class works on the first instance that was made, and on no other; all were one"
)
UNKNOWN_METHOD: Final = Entry(Verdict.DECISION, "a method by its name as text: look up what becomes of it")

# What a star import of these modules brings.
STAR_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "nv_attestation_sdk": ("attestation",),
    "nv_attestation_sdk.attestation": ("Attestation", "Devices", "Environment", "VerifierFields"),
    "verifier": ("cc_admin",),
    "verifier.cc_admin": (
        "collect_gpu_evidence",
        "collect_gpu_evidence_local",
        "collect_gpu_evidence_remote",
        "attest",
    ),
}

SUPPORTED_DEVICES: Final = ("GPU", "SWITCH")
SUPPORTED_ENVIRONMENTS: Final = ("LOCAL", "REMOTE")

ENVIRONMENT_WORDS: Final[Mapping[str, Entry]] = {
    **dict.fromkeys(
        ("NV_RIM_URL", "NV_OCSP_URL", "NV_NRAS_GPU_URL", "NV_NRAS_NVSWITCH_URL", "NVIDIA_ATTESTATION_SERVICE_KEY"),
        Entry(Verdict.SAME, "read when it is needed; the old SDK read it at import"),
    ),
    "NV_ALLOW_HOLD_CERT": Entry(
        Verdict.CHANGED,
        "certificates on hold count as before, with a warning, and the token says so; cc_admin sets no GPU ready by it",
    ),
    "notasecret": Entry(Verdict.DECISION, "the constant secret of the old tokens: verify with the public key instead"),
}
