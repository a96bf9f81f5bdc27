"""The catalogue's entries for errors: one per family of ``nvattest.errors``, and the driver errors people meet most."""

from __future__ import annotations

from typing import Final

from nvattest.report.entry import Entry

_DOCTOR: Final = "$ nvattest doctor"


def _error(
    key: str,
    name: str,
    title: str,
    meaning: str,
    causes: tuple[str, ...],
    actions: tuple[str, ...],
    covers: tuple[str, ...] = (),
    see: tuple[str, ...] = (),
    phrases: tuple[str, ...] = (),
) -> Entry:
    return Entry(
        kind="error",
        key=key,
        name=name,
        title=title,
        meaning=meaning,
        causes=causes,
        actions=actions,
        covers=covers,
        see=see,
        phrases=phrases,
    )


def _service(
    code: str,
    message: str,
    title: str,
    meaning: str,
    causes: tuple[str, ...],
    actions: tuple[str, ...],
    see: tuple[str, ...],
    covers: tuple[str, ...] = (),
) -> Entry:
    """An error code of NVIDIA's remote service, as ``x-nvidia-error-details`` has it in the token of a device."""
    said = f"{meaning} The answer is genuine; the device is not trusted."
    return _error(code, message, f"NVIDIA's service: {title}", said, causes, actions, covers, see)


ERROR_ENTRIES: Final = (
    _error(
        "error", "NvattestError", "any documented error of this package",
        "The base of all errors. Each carries a short word (code), the number of NVIDIA's tools (result_code) "
        "and a hint. "
        "Bad evidence raises none of them: it gives an appraisal whose checks failed.",
        ("See the family of the error.",), ("Compare error.code in programs; texts may change.",),
    ),
    _error(
        "input", "InputError", "an argument or a file cannot be used",
        "You gave something that is not what it should be: a nonce, a time, a file, a name.",
        ("A typing error.", "A file that is missing, too large or of another kind."),
        ("The message names the thing, what was expected and what was found.", "$ nvattest COMMAND --help"),
        (
            "time", "time-zone", "nonce", "nonce-hex", "nonce-size", "nonce-type", "file", "folder", "version",
            "claims-version", "evidence-form", "device-kind", "bundle-conflict", "unused-input", "rim-id",
            "no-reference-values", "architecture", "platform",
            "seed", "world", "anchor", "backend", "backend-missing", "ocsp-nonce", "explain-format",
            "explain-unknown", "fault-live", "report-extra", "shell", "command", "latency",
            "no-evidence", "devices-changed", "hook-config", "clock",
            "kata-config", "extension-manifest", "extension-image", "verity-params", "initdata",
            "output", "workers", "resume", "leeway", "lifetime", "issuer", "token-id", "expected-devices",
            "no-devices", "malformed",
            "binding", "report-data", "rtmr", "url", "tls-ca", "ppcie-mode", "keys",
            "key-type", "signing-key", "key", "deadline", "challenge", "binding-key", "binding-digest",
            "jcs", "runtime-data",
        ),
        ("4",),
    ),
    _error(
        "parse", "ParseError", "bytes do not follow their format",
        "A document or message is malformed. The error says which one (source) and at which byte (offset).",
        ("The file was cut, edited or re-encoded.", "It is of a newer version.", "It is hostile."),
        ("Get the document again from where it came from.", "Never edit evidence, RIMs or answers."),
        (
            "json", "duplicate-key", "too-large", "truncated", "stray-bytes", "length", "der", "pem", "ocsp", "bundle",
            "spdm-version", "spdm-code", "spdm-parameter", "field-missing", "field-malformed", "no-blocks",
            "no-opaque", "opaque-version", "chain-size", "chain-empty", "certificate-size", "fwid",
            "batch-line", "line-time", "toml", "encoding", "format", "base64", "quote-version", "quote-key",
            "quote-tee", "quote-body", "quote-signature",
        ),
        ("16", "401"),
    ),
    _error(
        "collection", "CollectionError", "the driver gave no evidence",
        "The driver or the switch library is missing, refused or did not answer. Its word says which.",
        ("No driver, no GPU, CC mode off, no permission, a lost GPU, a timeout.",),
        (_DOCTOR, "$ nvidia-smi", "$ dmesg | grep -iE 'nvrm|xid'"),
        (
            "nvml-binding", "nvml-other-library", "nvml-error", "nvml-uninitialized", "nvml-argument",
            "nvml-not-supported", "nvml-not-found", "nvml-buffer", "nvml-timeout", "nvml-function-missing",
            "nvml-blocked", "nvml-in-use", "nvml-memory", "nvml-no-data", "nvml-resources", "nvml-version-mismatch",
            "nvml-not-ready", "nvml-invalid-state", "driver-size", "driver-fault", "driver-answer", "driver-version",
            "gpu-count", "gpu-architecture", "nscq-answer", "nscq-function-missing", "nscq-session",
            "switch-architecture", "switch-count", "switch-duplicate", "corelib",
        ),
        ("500", "501", "600", "601"),
    ),
    _error(
        "collateral", "CollateralError", "a RIM or a revocation answer could not be had",
        "What the verification needs from NVIDIA's services could not be fetched or stored.",
        ("No network, DNS, proxy or service key.", "The service is down or limits requests.", "The disk is full."),
        ("$ nvattest doctor --online", "Verify from a bundle:", "$ nvattest attest --bundle BUNDLE"),
        (
            "cache-folder", "cache", "timeout", "not-found", "answer", "service-key", "nras-body", "bundle-incomplete",
        ),
        ("102", "103", "104", "202"),
    ),
    _error(
        "policy", "PolicyError", "a policy cannot be read or evaluated",
        "The fault lies in the policy, not in the evidence. It is never a verdict.",
        ("Syntax, unknown fields, no result.", "Rego without the extra 'rego'."),
        ("$ nvattest policy check POLICY",),
        ("policy-kind", "policy-ear", "policy-value", "claims"),
        ("301", "11"),
    ),
    _error(
        "token", "TokenError", "a token must not be believed",
        "The token broke a rule: form, algorithm, key, signature, times, issuer, audience or nonce.",
        ("A wrong clock.", "Another issuer or key.", "A token of another request."),
        ("$ nvattest explain TOKEN-FILE", "$ date -u"),
        (
            "jwks", "jwks-url", "x5c", "x5c-chain", "key-missing", "key-mismatch", "kid-missing", "kid-unknown",
            "alg-none", "alg-not-allowed", "crit", "header-key", "typ", "json-serialization", "signature", "cnf",
            "kind", "subject", "wrapper", "missing-exp", "missing-iat", "missing-iss", "missing-jti", "times",
            "expired", "not-yet-valid", "nonce-missing", "nonce-mismatch", "submods-missing", "submods-extra",
            "submods-duplicate", "digest", "digest-algorithm", "device-count", "device-duplicate",
            "overall-inconsistent", "simulated", "weakened",
        ),
        ("701", "21"),
    ),
    _error(
        "not-trusted", "NotTrustedError", "require() on a result that is not trusted",
        "Your program asked the appraisal to be trusted, and it is not. The message lists each device and check.",
        ("A check failed.",),
        ("Save the appraisal as JSON and explain it:", "$ nvattest explain appraisal.json"),
        (),
        ("12",),
    ),
    _error(
        "hook-log", "hook check", 'the guest\'s kernel log has "kata-agent: hook failed"',
        "An agent from 4.0 on writes this line for every hook whose exit status it does not get, and its own reaper "
        'takes the status of most: with "no exit code for hook" it is written for hooks that did their work too. It '
        'decides nothing, as the status decides nothing from 3.1 on. With "timed out" the hook was killed after 10 s.',
        (
            '"no exit code for hook": the agent\'s reaper was first. Harmless.',
            '"timed out" or "communicate": the hook did not end within ten seconds and was killed.',
            '"exit status with": the hook ended with another status than 0; its own line says what is ready.',
            "Anything else: the file could not be run, for example for a missing library.",
        ),
        ("$ nvattest hook status", "$ nvattest hook check"),
        phrases=("kata-agent: hook failed", "no exit code for hook"),
    ),
    _error(
        "cc-off", "CollectionError", "confidential computing is off",
        "Neither CC nor protected PCIe mode is on, so the GPUs give no evidence. The raw driver call answers 'unknown "
        "error' (999) in this state.",
        ("The mode was never set on the host.", "It was set, but the GPU was not reset.", "The GPU cannot do it."),
        ("$ nvidia-smi conf-compute -f", "Set CC mode 'on' on the host and reset the GPU.", _DOCTOR),
        (),
        ("509",),
    ),
    _error(
        "devtools-on", "CollectionError", "DevTools mode is on",
        "In DevTools mode debuggers may read what the GPU computes. It is for development and proves nothing.",
        ("CC mode is 'devtools' on the host.",),
        ("$ nvidia-smi conf-compute -d", "Set CC mode 'on' instead and reset the GPU."),
        (),
        ("509", "debug"),
    ),
    _error(
        "nvml-missing", "CollectionError", "the NVML library was not found",
        "libnvidia-ml.so.1 is part of the driver. It is looked for by name and in the usual folders, Kata's "
        "among them.",
        ("No driver on this machine.", "A container without the driver's files.", "A guest without a loader cache."),
        (_DOCTOR, "$ ldconfig -p | grep nvidia-ml", "Evidence in a file needs no driver."),
        (),
        ("500",),
    ),
    _error(
        "driver-not-loaded", "CollectionError", "the NVIDIA driver is not loaded",
        "The library is there but the kernel module is not.",
        ("The module is not loaded, or failed to load.", "The guest's kernel lacks crypto options that it needs."),
        ("$ modprobe nvidia", "$ dmesg | grep -i nvidia"),
        (),
        ("500",),
    ),
    _error(
        "driver-mismatch", "CollectionError", "library and kernel driver have different versions",
        "After an update the old kernel module still runs.",
        ("The driver was updated without a restart.", "A container brings its own library."),
        ("Reload the kernel modules, or restart.", "$ cat /proc/driver/nvidia/version"),
        (),
        ("500",),
    ),
    _error(
        "driver-timeout", "CollectionError", "the driver did not answer in time",
        "A driver call was given up at its deadline. No GPU is set ready after it; a call that sets them ready may "
        "itself still be done.",
        (
            "Eight GPUs need 25 to 35 seconds for their first initialisation.",
            "A bring-up that was interrupted has wedged the GPU.",
        ),
        ("$ nvidia-smi -pm 1", "Give more time; never kill the first client of a confidential GPU.", "Reset the GPU."),
        (),
        ("501",),
    ),
    _error(
        "driver-thread", "CollectionError", "the driver was not asked: the system has used up its threads",
        "Each driver call needs a thread, so that it can be given up. Where none can be had only the ready state is "
        "still taken away.",
        ("A limit on processes is reached: by pids.max of the cgroup, by ulimit -u, or by a neighbour that forks.",),
        ("$ cat /proc/loadavg", "End what uses them up, or raise the limit, and attest again."),
        (),
        ("501",),
    ),
    _error(
        "gpu-lost", "CollectionError", "the GPU is lost",
        "The GPU fell off the bus or needs a reset.",
        ("A hardware or power fault.", "A driver that was torn down and cannot initialise a CC GPU again."),
        ("$ dmesg | grep -i xid", "Restart the guest; if it comes back, the host."),
        ("gpu-reset-required",),
        ("501",),
    ),
    _error(
        "nvml-permission", "CollectionError", "no permission for the driver",
        "This user may not talk to the driver.",
        ("/dev/nvidiactl is not readable and writable.", "A container lacks the devices."),
        ("$ ls -l /dev/nvidia*", "Run as root, or give access to the devices."),
        (),
        ("501",),
    ),
    _error(
        "no-gpu", "CollectionError", "no GPU was found",
        "The driver works but has no GPU. That is never taken for success.",
        ("The GPU was not passed through to the guest.", "A driver that could not attach to it (see dmesg)."),
        ("$ nvidia-smi -L", "$ lspci -d 10de:", _DOCTOR),
        ("nvml-gpu-not-found", "no-switch"),
        ("devices-present",),
    ),
    _error(
        "nscq-missing", "CollectionError", "the switch library was not found",
        "libnvidia-nscq.so.2 reads evidence of NVSwitches. Only guests with switches need it.",
        ("It is a package of its own, and not installed.",),
        ("Install libnvidia-nscq in exactly the version of the driver.", _DOCTOR),
        (),
        ("600",),
    ),
    _error(
        "device-count", "NotTrustedError", "devices that were not attested beside those that were",
        "The ready state is one switch for all GPUs of a guest. The hook sets it only where the PCI bus, the driver, "
        "the configuration and the evidence agree on the number of devices.",
        (
            "A container was given some of the guest's GPUs.",
            "A driver that could not attach to one of them (see dmesg).",
            "expected_gpus or expected_switches is another number than there are.",
        ),
        ("$ lspci -d 10de:", "$ nvidia-smi -L", "Run the hook where all devices of the guest can be seen."),
        (),
        ("devices-present",),
    ),
    _error(
        "ready-state", "CollectionError", "the ready state is not what it should be",
        "The GPUs were told to accept work or not, and the driver says something else afterwards.",
        ("Another program sets the state too.", "The driver is newer than this program."),
        ("$ nvidia-smi conf-compute -grs",),
        (),
        ("501",),
    ),
    _service(
        "4003", "INVALID_NONCE", "the request's nonce cannot be used",
        "NVIDIA's service takes a nonce of 32 bytes in hexadecimal.",
        ("The request was changed on its way.",), ("Ask again with a nonce of 64 hexadecimal digits.",), ("504", "603"),
    ),
    _service(
        "4005", "INVALID_EVIDENCE", "the evidence cannot be read",
        "NVIDIA's service could not read the report as SPDM, or not as one of this architecture.",
        ("The evidence was cut or re-encoded.", "The service does not yet know this device or driver."),
        ("$ nvattest attest", "Compare with the local verifier, which names the byte."), ("16", "503"),
    ),
    _service(
        "4007", "INVALID_CERTIFICATE_CHAIN", "a certificate chain was refused",
        "The chain of the device (4007, 4014) or of a reference manifest (4015) does not hold.",
        ("The chain is another device's.", "A certificate was revoked or has expired.", "The device is simulated."),
        ("$ nvattest attest", "Compare with the local verifier, which names the certificate."), ("802",),
        ("4014", "4015"),
    ),
    _service(
        "4010", "NONCE_NOT_MATCHING", "the report answers another nonce",
        "The nonce in the device's signed report is not the one of the request.",
        ("Evidence of an earlier request.", "Evidence and nonce of two nodes were mixed up."),
        ("Collect again with the nonce of this request:", "$ nvattest collect-evidence --nonce HEX"), ("504", "603"),
    ),
    _service(
        "4013", "INVALID_EVIDENCE_SIGNATURE", "the report's signature does not verify",
        "The leaf key of the chain did not sign this report.",
        ("The report was changed.", "Report and chain are of two devices."),
        ("$ nvattest collect-evidence --nonce HEX",), ("508", "606"),
    ),
    _service(
        "5013", "INVALID_RIM_SIGNATURE", "a reference manifest's signature does not verify",
        "The service refused a RIM of its own store.",
        ("A fault of the service.",), ("Ask again later, or verify locally:", "$ nvattest attest"), ("105",),
    ),
)  # fmt: skip
