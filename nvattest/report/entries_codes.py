"""The catalogue's entries for result codes: one for every member of ``ResultCode``."""

from __future__ import annotations

from typing import Final

from nvattest.errors import ResultCode
from nvattest.report.entry import Entry

_C = ResultCode
_DOCTOR: Final = "$ nvattest doctor"
_ONLINE: Final = "$ nvattest doctor --online"
_FETCH: Final = "$ nvattest bundle fetch --output BUNDLE"
_COLLECT: Final = "$ nvattest collect-evidence --device all --nonce HEX"
_EXPLAIN: Final = "$ nvattest explain appraisal.json"


def _code(
    code: ResultCode, meaning: str, causes: tuple[str, ...], actions: tuple[str, ...], see: tuple[str, ...] = ()
) -> Entry:
    return Entry(
        kind="code", key=str(int(code)), name=code.name, title=code.message, meaning=meaning, causes=causes,
        actions=actions, see=see,
    )  # fmt: skip


# Codes that NVIDIA's tools define for faults that this program cannot have.
def _theirs(code: ResultCode, what: str) -> Entry:
    return _code(
        code,
        f"{what} nvattest has no such fault of its own; the code is listed because NVIDIA's tools return it.",
        ("The result comes from NVIDIA's nvattest, or from a program that links its library.",),
        ("Run the same verification with this nvattest.", "$ nvattest version"),
    )


CODE_ENTRIES: Final = (
    _code(
        _C.OK,
        "Everything that was asked for was done. For attest: every required check of every device and of the platform "
        "passed, or a named policy option let it stand.",
        ("All is well.",),
        ("Look at 'weakened' and 'anchors' of the result before you rely on it.",),
    ),
    _code(
        _C.UNKNOWN,
        "The program ended in a way that has no code of its own, for example because the reader of its output "
        "went away.",
        ("The output was piped into a program that ended first.",),
        ("Run it again with its output in a file.", _DOCTOR),
    ),
    _code(
        _C.INTERNAL_ERROR,
        "A fault of the program. Nothing was accepted because of it.",
        ("A defect in nvattest or in a library that it uses.",),
        ("$ nvattest doctor --bundle support.tar.gz", "Report it with that file, the command and the message."),
    ),
    _theirs(_C.NOT_INITIALIZED, "A library was used before it was initialised."),
    _code(
        _C.BAD_ARGUMENT,
        "An argument or a file that you gave cannot be used. The message names it.",
        (
            "A nonce that is not 64 hexadecimal digits.",
            "A file that is no evidence, bundle, policy or PEM, or of an unknown version.",
            "Two options that exclude each other.",
        ),
        ("Read the message and its hint.", "$ nvattest COMMAND --help"),
        ("input", "parse"),
    ),
    _theirs(_C.ALLOCATION_FAILED, "Memory ran out."),
    _code(
        _C.FEATURE_NOT_ENABLED,
        "The feature needs something that is not installed.",
        ("An optional extra is missing: rego, fast, report or color.",),
        ("$ pip install 'nvattest[rego,fast,report]'", _DOCTOR),
    ),
    _theirs(_C.XML_INIT_FAILED, "The XML library could not be initialised."),
    _theirs(_C.CURL_INIT_FAILED, "The HTTP library could not be initialised."),
    _theirs(_C.LIBXML2_ERROR, "The XML library reported an error."),
    _code(
        _C.RP_POLICY_MISMATCH,
        "The evidence was judged, and the relying party's policy refuses the claims. The devices may be in order: this "
        "policy demands something else.",
        (
            "The policy demands a version, a model or a mode that this machine does not have.",
            "The policy was written for another version of the claims; names differ between 2.0, 3.0 and 4.0.",
            'A Rego policy compares a text as if it were true or false: "fail" counts as true.',
        ),
        ("$ nvattest policy check POLICY", "Compare the claims of -f json with what the policy reads."),
        ("policy",),
    ),
    _code(
        _C.OVERALL_RESULT_FALSE,
        "All evidence could be read and judged, and at least one check failed. This code is the sum; the cause "
        "is in the "
        "checks.",
        (
            "Measurements differ from their golden values.",
            "A certificate is expired or a versions rule of the policy failed.",
            "Devices are missing, twice there, or not linked as they should be.",
        ),
        (_EXPLAIN, "$ nvattest explain measurements"),
        ("measurements", "topology", "devices-present", "debug"),
    ),
    _theirs(_C.JSON_SERIALIZATION_ERROR, "A result could not be written as JSON."),
    _theirs(_C.CACHE_OBJECT_NOT_FOUND, "The cache does not hold an object."),
    _code(
        _C.RATE_LIMITED,
        "NVIDIA's service answered 429: too many requests. Nothing was decided.",
        ("Many nodes start at once without a cache or a bundle.", "A loop retries without waiting."),
        ("Use a bundle or a cache for a fleet.", _FETCH, "Ask NVIDIA for a service key."),
    ),
    _code(
        _C.EVIDENCE_MALFORMED,
        "The evidence is not what its format says. Nothing in it was believed.",
        (
            "The JSON, base64, PEM or report was cut or edited.",
            "GPU evidence was given for a switch or the other way round.",
        ),
        ("The message names the place.", _COLLECT),
        ("report-format", "chain-format", "parse"),
    ),
    _code(
        _C.EVIDENCE_INVALID_SIGNATURE,
        "The evidence carries a signature that does not verify.",
        ("Report and chain are of two devices.", "The report was altered."),
        (_COLLECT,),
        ("report-signature",),
    ),
    _code(
        _C.EVIDENCE_NONCE_MISMATCH,
        "The evidence answers another nonce than yours.",
        ("The evidence is a recording, or was made for somebody else.",),
        ("Give the nonce that you sent with --nonce.", _COLLECT),
        ("nonce",),
    ),
    _code(
        _C.NONCE_MISMATCH,
        "Two parts that must speak of one nonce name different ones.",
        ("A token or evidence of another request was put in.",),
        ("Collect and verify again with one nonce.", _COLLECT),
        ("nonce", "one-nonce"),
    ),
    _code(
        _C.EAR_SIGNING_FAILED,
        "The result could not be signed as a token. No token was given out.",
        ("The signing key is missing, unreadable or of another kind.",),
        ("Give an ECDSA P-384 private key in PEM, readable by this user only.",),
        ("token",),
    ),
    _code(
        _C.VERIFIER_JWKS_ERROR,
        "The keys that verify a token could not be read or had.",
        (
            "The JWKS file or address is wrong.",
            "The key id of the token is not in the set; the issuer may have rotated.",
        ),
        ("Get the current key set of the issuer.", "$ nvattest verify-token --help"),
        ("token",),
    ),
    _code(
        _C.RIM_FORBIDDEN,
        "The RIM service refused the request (401 or 403).",
        ("The service key is missing, expired or not for this service.", "A proxy in between refuses."),
        ("Set the service key as the documentation of your service says.", _ONLINE),
    ),
    _code(
        _C.RIM_INTERNAL_ERROR,
        "The RIM service answered with a fault of its own, or with something that is no RIM.",
        ("The service has a fault.", "A captive portal or proxy answers in its place."),
        ("Try again later; use a bundle to be independent of it.", _FETCH, _ONLINE),
    ),
    _code(
        _C.RIM_CONNECTION_ERROR,
        "The RIM service could not be reached in time.",
        (
            "The guest has no network, no DNS or needs a proxy.",
            "A firewall lets the request hang; it looks like a missing RIM, and is not.",
        ),
        (_ONLINE, "Without a network verify from a bundle:", "$ nvattest attest --bundle BUNDLE"),
    ),
    _code(
        _C.RIM_NOT_FOUND,
        "There is no RIM under the id that follows from the signed report. NVIDIA publishes one per driver release and "
        "one per VBIOS and board; without it there are no golden values.",
        (
            (
                "The driver or VBIOS is too new, special to a vendor, or was never published (H800 and H200 boards "
                "were reported)."
            ),
            "The bundle or folder was made for another release.",
            "No reference values are published for a device of this architecture at all (Rubin).",
        ),
        (
            "$ nvattest preflight",
            "The message names the id. Fetch it by id, or move to a release that has one.",
            _FETCH,
        ),
        ("driver-rim-available", "vbios-rim-available", "bios-rim-available", "reference-values"),
    ),
    _code(
        _C.RIM_INVALID_SIGNATURE,
        "The RIM is not signed by its first certificate. None of its golden values was used.",
        ("The file was altered, if only by an editor or a text-mode transfer.",),
        (_FETCH,),
        ("driver-rim-signature", "vbios-rim-signature", "bios-rim-signature"),
    ),
    _code(
        _C.RIM_INVALID_SCHEMA,
        "The RIM is not a document of the profile that this program reads.",
        ("An error page was stored as a RIM.", "The document has a DTD, entities, or a second signature."),
        (_FETCH,),
        ("driver-rim-format", "vbios-rim-format", "bios-rim-format"),
    ),
    _code(
        _C.RIM_MEASUREMENT_NOT_FOUND,
        "A golden value that is needed is not in the RIM.",
        ("The RIM is of another kind of device.",),
        (_FETCH, "$ nvattest bundle inspect BUNDLE"),
        ("measurements",),
    ),
    _code(
        _C.RIM_MEASUREMENT_CONFLICT,
        "Driver RIM and VBIOS RIM both claim one measurement. They do not belong together.",
        ("RIMs of different releases were mixed in one bundle or folder.",),
        (_FETCH,),
        ("rim-conflict",),
    ),
    _code(
        _C.OCSP_INVALID_RESPONSE,
        "An OCSP answer is not one: malformed, badly signed, from the wrong responder, or about another certificate.",
        ("A proxy answers in the responder's place.", "The file in the bundle is damaged."),
        (_FETCH, _ONLINE),
        ("chain-revocation",),
    ),
    _code(
        _C.OCSP_SERVER_ERROR,
        "The OCSP service could not be reached, or answered with a fault.",
        ("No network, DNS or proxy.", "The service is down: attestation then has to wait or use a bundle."),
        (_ONLINE, _FETCH),
        ("chain-revocation",),
    ),
    _code(
        _C.OCSP_INVALID_REQUEST,
        "The OCSP service calls our request malformed or does not serve the issuer.",
        (
            "The certificate is not one of NVIDIA's; simulated devices have a responder of their own.",
            "The address is that of another service.",
        ),
        ("Check --ocsp-url and NVAT_OCSP_BASE_URL.", _ONLINE),
        ("chain-revocation",),
    ),
    _code(
        _C.OCSP_STATUS_NOT_GOOD,
        "A certificate is revoked, on hold or unknown to the responder, or its answer is outside its signed window.",
        (
            "NVIDIA withdrew a release or a device.",
            "Certificate hold: a driver that is not released yet.",
            "The answer in the bundle is too old, or the clock is wrong.",
        ),
        (_EXPLAIN, "$ date -u", _FETCH),
        ("chain-revocation", "driver-rim-revocation", "vbios-rim-revocation"),
    ),
    _code(
        _C.OCSP_FORBIDDEN,
        "The OCSP service refused the request (401 or 403).",
        ("The service key is missing or not valid.",),
        ("Set the service key as the documentation of your service says.", _ONLINE),
    ),
    _code(
        _C.POLICY_EVALUATION_ERROR,
        "The policy itself is at fault: it cannot be read, compiled or evaluated. That is never a yes.",
        ("A syntax error, an unknown field, or a rule without a result.", "Rego needs the extra 'rego'."),
        ("$ nvattest policy check POLICY", "$ pip install 'nvattest[rego]'"),
        ("policy",),
    ),
    _code(
        _C.SPDM_PARSE_ERROR,
        "The device's answer does not read as an SPDM MEASUREMENTS response.",
        ("The report was cut or altered.", "The device speaks another SPDM version than 1.1."),
        (_COLLECT,),
        ("report-format",),
    ),
    _code(
        _C.SPDM_OPAQUE_DATA_PARSE_ERROR,
        "The opaque data of the report, in which NVIDIA writes versions and modes, does not read.",
        ("The driver writes a newer layout.", "The report was altered."),
        ("Update nvattest.", _COLLECT),
        ("report-format",),
    ),
    _code(
        _C.SPDM_MEASUREMENT_RECORD_PARSE_ERROR,
        "The measurement record of the report does not read: lengths disagree or an index appears twice.",
        ("The report was altered.",),
        (_COLLECT,),
        ("report-format",),
    ),
    _code(
        _C.SPDM_REQUEST_PARSE_ERROR,
        "The first 37 bytes of the report, the request that was asked, do not read.",
        ("The evidence begins in the wrong place: it must contain request and response.",),
        (_COLLECT,),
        ("report-format",),
    ),
    _code(
        _C.SPDM_FIELD_NOT_FOUND,
        "A field that must stand in the report's opaque data is not there.",
        ("The driver is too old or too new for this check.",),
        ("Update the driver or nvattest.", _DOCTOR),
        ("mode", "report-format"),
    ),
    _code(
        _C.NVML_INIT_FAILED,
        "There is no usable NVIDIA driver: its library is missing, does not load, or does not initialise.",
        (
            "This machine has no GPU: verify from a file instead.",
            "The kernel modules are not loaded, or of another version than the library.",
            "In a container or minimal guest the library is not where the loader looks.",
            "The driver could not attach to the GPU (RmInitAdapter in dmesg); an interrupted bring-up needs a reset.",
            "The guest's kernel lacks crypto that the driver needs ('libspdm expects LKCA but found stubs' in dmesg).",
        ),
        (_DOCTOR, "$ dmesg | grep -iE 'nvrm|nvidia'", "$ nvidia-smi"),
        ("collection",),
    ),
    _code(
        _C.NVML_ERROR,
        "The driver is there but refused a call or did not answer in time.",
        (
            "Confidential computing is off: the evidence calls then answer 'unknown error' (999).",
            "No permission for /dev/nvidia*.",
            "The first call initialises the GPUs, 3 to 4 seconds each; without persistence mode every time.",
        ),
        (_DOCTOR, "$ nvidia-smi conf-compute -f", "$ nvidia-smi -pm 1"),
        ("collection",),
    ),
    _code(
        _C.GPU_ARCHITECTURE_NOT_SUPPORTED,
        "The GPU is of an architecture that cannot attest, or that this program does not know.",
        ("A GPU older than Hopper.", "A GPU newer than this nvattest.", "The evidence is labelled wrongly."),
        ("$ nvidia-smi --query-gpu=name,driver_version,vbios_version --format=csv", "$ nvattest version"),
        ("architecture",),
    ),
    _code(
        _C.GPU_EVIDENCE_INVALID,
        "The GPU's report does not read or has something that must not be in it.",
        ("The report was cut or altered.", "Bytes follow its signature."),
        (_COLLECT,),
        ("report-format", "report-trailing-bytes"),
    ),
    _code(
        _C.GPU_EVIDENCE_NONCE_MISMATCH,
        "The GPU's report answers another nonce.",
        ("The evidence is a recording.", "The nonce was derived on the way, or given in another notation."),
        ("Give the nonce that you sent, 64 hexadecimal digits.", _COLLECT),
        ("nonce",),
    ),
    _code(
        _C.GPU_DRIVER_RIM_VERSION_MISMATCH,
        "The driver RIM describes another driver than the one that signed the report.",
        ("The driver was updated after the bundle was made.", "A RIM is stored under another one's name."),
        (_FETCH,),
        ("driver-rim-binding",),
    ),
    _code(
        _C.GPU_VBIOS_RIM_VERSION_MISMATCH,
        "The VBIOS RIM describes another VBIOS or board.",
        ("The VBIOS was flashed after the bundle was made.", "A RIM is stored under another one's name."),
        (_FETCH,),
        ("vbios-rim-binding",),
    ),
    _code(
        _C.GPU_FWID_MISMATCH,
        "The firmware that runs is not the one that the leaf certificate was issued for.",
        ("Report and chain are of two GPUs.", "The firmware was replaced."),
        (_COLLECT,),
        ("fwid",),
    ),
    _code(
        _C.GPU_INVALID_SIGNATURE,
        "The GPU's report is not signed by the key of its leaf certificate.",
        ("Report and chain are of two GPUs.", "The report was altered."),
        (_COLLECT,),
        ("report-signature",),
    ),
    _code(
        _C.GPU_MODE_NOT_SUPPORTED,
        "The GPUs are neither in CC nor in protected PCIe mode, or in DevTools mode: their evidence would "
        "prove nothing.",
        (
            "CC mode is off on the host.",
            "CC mode is 'devtools'.",
            "The mode was changed, but the GPU was not reset.",
        ),
        (
            "$ nvidia-smi conf-compute -f",
            "$ nvidia-smi conf-compute -d",
            "Set the mode on the host (gpu-admin-tools or the GPU operator's CC manager), then reset the GPU.",
        ),
        ("mode",),
    ),
    _code(
        _C.GPU_FW_NOT_SUPPORTED,
        "The report has a newer major version of the opaque data than this program reads.",
        ("The driver is newer than nvattest (CUDA 13.5 changed the layout).",),
        ("Update nvattest.", "$ nvattest version"),
        ("report-format",),
    ),
    _code(
        _C.NSCQ_INIT_FAILED,
        "The switch library (libnvidia-nscq) is missing or does not open a session.",
        (
            "It is not installed: only guests with NVSwitches need it.",
            "It has another version than the driver.",
            "Not all switches are passed through to the guest.",
        ),
        (_DOCTOR, "Install libnvidia-nscq in exactly the version of the driver."),
        ("collection",),
    ),
    _code(
        _C.NSCQ_ERROR,
        "The switch library refused a call or gave an unusable answer.",
        ("Library and driver have different versions.", "PPCIE mode is not on for all GPUs and switches."),
        (_DOCTOR, "$ nvidia-smi conf-compute -mgm"),
        ("collection",),
    ),
    _code(
        _C.SWITCH_ARCHITECTURE_NOT_SUPPORTED,
        "The switch is of an architecture that cannot attest, or that this program does not know.",
        ("A switch older than LS10.", "The evidence is labelled wrongly."),
        ("$ nvattest version",),
        ("architecture",),
    ),
    _code(
        _C.SWITCH_NONCE_MISMATCH,
        "The switch's report answers another nonce.",
        ("GPUs and switches were collected with different nonces.", "The evidence is a recording."),
        (_COLLECT,),
        ("nonce", "one-nonce"),
    ),
    _code(
        _C.SWITCH_VBIOS_RIM_VERSION_MISMATCH,
        "The BIOS RIM describes another switch BIOS.",
        ("The BIOS was updated after the bundle was made.",),
        (_FETCH,),
        ("bios-rim-binding",),
    ),
    _code(
        _C.SWITCH_FWID_MISMATCH,
        "The switch's firmware is not the one that its leaf certificate was issued for.",
        ("Report and chain are of two switches.",),
        (_COLLECT,),
        ("fwid",),
    ),
    _code(
        _C.SWITCH_INVALID_SIGNATURE,
        "The switch's report is not signed by the key of its leaf certificate.",
        ("Report and chain are of two switches.", "The report was altered."),
        (_COLLECT,),
        ("report-signature",),
    ),
    _code(
        _C.CORELIB_INIT_FAILED,
        "NVIDIA's attestation core library was asked for and is not there.",
        ("This program does not collect through it; recordings made with it can be verified.",),
        ("Collect with --gpu-evidence-source nvml, or give a file.",),
        ("collection",),
    ),
    _theirs(_C.CORELIB_ERROR, "NVIDIA's attestation core library reported an error."),
    _code(
        _C.NRAS_ATTESTATION_ERROR,
        "NVIDIA's remote attestation service refused the evidence or could not be reached.",
        (
            "4005 INVALID_EVIDENCE: it does not read the evidence; endpoints differ for switches.",
            "The service does not know this driver or architecture yet.",
            "No network, no service key, or the service was away for a moment (HTTP 422 and 5xx were seen).",
        ),
        (_ONLINE, "Verify the same evidence locally to see what is wrong:", "$ nvattest attest --help"),
    ),
    _code(
        _C.NRAS_TOKEN_INVALID,
        "A token must not be believed: its signature, time, issuer, nonce or form is wrong.",
        (
            "The guest's clock is behind: 'not yet valid (nbf)'.",
            "The token is older than its hour.",
            "It was signed with another key, or by the old SDK itself (HS256), which is no evidence to others.",
        ),
        ("$ date -u", "$ nvattest verify-token --help", "$ nvattest explain TOKEN-FILE"),
        ("token",),
    ),
    _code(
        _C.NRAS_FORBIDDEN,
        "NVIDIA's remote attestation service refused the request (401 or 403).",
        ("The service key is missing or not valid.",),
        ("Local verification needs no key:", "$ nvattest attest --help"),
    ),
    _code(
        _C.CERT_FWID_NOT_FOUND,
        "The leaf certificate carries no firmware id.",
        ("The chain belongs to another kind of device.",),
        (_COLLECT,),
        ("fwid",),
    ),
    _code(
        _C.CERT_NOT_FOUND,
        "A certificate that is needed is not there.",
        ("The chain of the evidence is empty or was cut.",),
        (_COLLECT,),
        ("chain-format",),
    ),
    _code(
        _C.CERT_CHAIN_VERIFICATION_FAILURE,
        "A certificate chain does not lead to the pinned root. This is a code of nvattest. CUDA's error 802, \"system "
        'not yet initialized", is something else: nobody has set the GPUs ready yet.',
        (
            "The device or RIM is simulated, and its roots were not given.",
            "Certificates are missing or in another order.",
            "The device is a pre-production one.",
        ),
        (
            _EXPLAIN,
            "For simulated devices give their roots with --trust-anchors.",
            (
                "If CUDA said 802: 'nvattest hook status' says whether the GPUs are ready and what the last verdict "
                "was, 'nvattest doctor' what keeps them from it. NVSwitches need a running fabric manager too."
            ),
        ),
        ("chain-path", "driver-rim-chain", "vbios-rim-chain"),
    ),
)
