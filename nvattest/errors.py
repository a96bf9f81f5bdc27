"""Every error that nvattest raises, and the result codes that name an outcome to a shell.

    NvattestError                 (abstract)
    ├── InputError                an argument or a file that the caller gave is unusable
    │   └── ParseError            bytes that do not follow their format: source and offset
    ├── CollectionError           the driver or the fabric library did not give evidence
    ├── CollateralError           a RIM or a revocation answer could not be obtained
    ├── PolicyError               a policy that cannot be read or evaluated
    ├── TokenError                a token that must not be believed
    └── NotTrustedError           ``require()`` of an appraisal or a token that is not trusted

Evidence that is merely bad raises nothing: it becomes an Appraisal whose checks failed.

Each error carries ``code``, a short stable word for programs; ``result_code``, the number that NVIDIA's tools use for
the same thing; and ``hint``, what to do next (possibly empty). Programs compare ``code`` and never parse messages.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from nvattest._text import clean

_MAXIMUM_MESSAGE: Final = 4000


class ResultCode(IntEnum):
    """NVIDIA's result codes (NVAT 1.2.2 and 2.0.0). ``message`` is their text, ``exit_status`` what a shell sees."""

    message: str

    def __new__(cls, value: int, message: str = "") -> ResultCode:
        code = int.__new__(cls, value)
        code._value_ = value
        code.message = message
        return code

    OK = 0, "Ok"
    UNKNOWN = 1, "Unknown"
    INTERNAL_ERROR = 2, "Internal Error"
    NOT_INITIALIZED = 3, "Not initialized"
    BAD_ARGUMENT = 4, "Bad Argument"
    ALLOCATION_FAILED = 5, "Allocation Failed"
    FEATURE_NOT_ENABLED = 6, "Feature is not enabled"
    XML_INIT_FAILED = 7, "XML Initialization Failed"
    CURL_INIT_FAILED = 8, "Curl Initialization Failed"
    LIBXML2_ERROR = 10, "LibXml2 Error"
    RP_POLICY_MISMATCH = 11, "Relying Party Policy Mismatch"
    OVERALL_RESULT_FALSE = 12, "Overall Attestation Result is False"
    JSON_SERIALIZATION_ERROR = 13, "JSON Serialization Error"
    CACHE_OBJECT_NOT_FOUND = 14, "Cache Object Not Found"
    RATE_LIMITED = 15, "Rate Limited"
    EVIDENCE_MALFORMED = 16, "Evidence Malformed"
    EVIDENCE_INVALID_SIGNATURE = 17, "Evidence Invalid Signature"
    EVIDENCE_NONCE_MISMATCH = 18, "Evidence Nonce Mismatch"
    NONCE_MISMATCH = 19, "Nonce Mismatch"
    EAR_SIGNING_FAILED = 20, "EAR Signing Failed"
    VERIFIER_JWKS_ERROR = 21, "Verifier JWKS Error"
    RIM_FORBIDDEN = 101, "RIM Forbidden"
    RIM_INTERNAL_ERROR = 102, "RIM Internal Error"
    RIM_CONNECTION_ERROR = 103, "RIM Connection Error"
    RIM_NOT_FOUND = 104, "RIM Not Found"
    RIM_INVALID_SIGNATURE = 105, "RIM Invalid Signature"
    RIM_INVALID_SCHEMA = 106, "RIM Invalid Schema"
    RIM_MEASUREMENT_NOT_FOUND = 107, "RIM Measurement Not Found"
    RIM_MEASUREMENT_CONFLICT = 108, "RIM Measurement Conflict"
    OCSP_INVALID_RESPONSE = 201, "OCSP Invalid Response"
    OCSP_SERVER_ERROR = 202, "OCSP Server Error"
    OCSP_INVALID_REQUEST = 203, "OCSP Invalid Request"
    OCSP_STATUS_NOT_GOOD = 204, "OCSP Status Not Good"
    OCSP_FORBIDDEN = 205, "OCSP Forbidden"
    POLICY_EVALUATION_ERROR = 301, "Policy Evaluation Error"
    SPDM_PARSE_ERROR = 401, "SPDM Parse Error"
    SPDM_OPAQUE_DATA_PARSE_ERROR = 402, "SPDM Opaque Data Parse Error"
    SPDM_MEASUREMENT_RECORD_PARSE_ERROR = 403, "SPDM Measurement Record Parse Error"
    SPDM_REQUEST_PARSE_ERROR = 404, "SPDM Request Parse Error"
    SPDM_FIELD_NOT_FOUND = 405, "SPDM Field Not Found"
    NVML_INIT_FAILED = 500, "NVML Initialization Failed"
    NVML_ERROR = 501, "NVML Error"
    GPU_ARCHITECTURE_NOT_SUPPORTED = 502, "GPU Architecture Not Supported"
    GPU_EVIDENCE_INVALID = 503, "GPU Evidence Invalid"
    GPU_EVIDENCE_NONCE_MISMATCH = 504, "GPU Evidence Nonce Mismatch"
    GPU_DRIVER_RIM_VERSION_MISMATCH = 505, "GPU Evidence Driver RIM Version Mismatch"
    GPU_VBIOS_RIM_VERSION_MISMATCH = 506, "GPU Evidence VBios RIM Version Mismatch"
    GPU_FWID_MISMATCH = 507, "GPU Evidence FWID Mismatch"
    GPU_INVALID_SIGNATURE = 508, "GPU Evidence Invalid Signature"
    GPU_MODE_NOT_SUPPORTED = 509, "GPU is neither in CC nor in PPCIe mode"
    GPU_FW_NOT_SUPPORTED = 510, "GPU FW version exceeds SDK support"
    NSCQ_INIT_FAILED = 600, "NSCQ Initialization Failed"
    NSCQ_ERROR = 601, "NSCQ Error"
    SWITCH_ARCHITECTURE_NOT_SUPPORTED = 602, "NVSwitch Architecture Not Supported"
    SWITCH_NONCE_MISMATCH = 603, "NVSwitch Evidence Nonce Mismatch"
    SWITCH_VBIOS_RIM_VERSION_MISMATCH = 604, "NVSwitch Evidence VBIOS RIM Version Mismatch"
    SWITCH_FWID_MISMATCH = 605, "NVSwitch Evidence FWID Mismatch"
    SWITCH_INVALID_SIGNATURE = 606, "NVSwitch Evidence Invalid Signature"
    CORELIB_INIT_FAILED = 607, "Corelib Initialization Failed"
    CORELIB_ERROR = 608, "Corelib Error"
    NRAS_ATTESTATION_ERROR = 700, "NRAS Attestation Error"
    NRAS_TOKEN_INVALID = 701, "NRAS Token Invalid"
    NRAS_FORBIDDEN = 702, "NRAS Forbidden"
    CERT_FWID_NOT_FOUND = 800, "Certificate FWID Not Found"
    CERT_NOT_FOUND = 801, "Certificate Not Found"
    CERT_CHAIN_VERIFICATION_FAILURE = 802, "Certificate Chain Verification Failure"

    @property
    def exit_status(self) -> int:
        """What a shell sees: the code modulo 256, as NVIDIA's tools return it."""
        return self.value % 256


class NvattestError(Exception):
    """Base of all errors of this package; it is never raised itself."""

    default_code: str = "error"
    default_result_code: ResultCode = ResultCode.INTERNAL_ERROR

    def __init__(
        self, message: str, *, code: str | None = None, result_code: ResultCode | None = None, hint: str = ""
    ) -> None:
        if type(self) is NvattestError:
            raise TypeError("NvattestError is abstract: raise one of its subclasses")
        # Messages quote untrusted files and answers; a printed error is one harmless line.
        message = clean(message, _MAXIMUM_MESSAGE)
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.result_code = self.default_result_code if result_code is None else result_code
        self.hint = clean(hint, _MAXIMUM_MESSAGE)

    def __str__(self) -> str:
        # An error that is a KeyError too, as in ``compat``, would quote its message.
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword arguments are state: without this, pickle could not restore an error in another process.
        return type(self).__new__, (type(self), *self.args), self.__dict__.copy()


class InputError(NvattestError):
    """An argument or a file that the caller gave cannot be used."""

    default_code = "input"
    default_result_code = ResultCode.BAD_ARGUMENT


class ParseError(InputError):
    """Bytes that do not follow their format.

    ``source`` says which bytes ("SPDM response", "RIM", "bundle"), ``offset`` where in them the fault lies (bytes from
    the start of that source), or None where the format has no useful offset.
    """

    default_code = "parse"
    default_result_code = ResultCode.EVIDENCE_MALFORMED

    def __init__(
        self,
        message: str,
        *,
        source: str,
        offset: int | None = None,
        code: str | None = None,
        result_code: ResultCode | None = None,
        hint: str = "",
    ) -> None:
        where = source if offset is None else f"{source}, byte {offset}"
        super().__init__(f"{where}: {message}", code=code, result_code=result_code, hint=hint)
        self.source = source
        self.offset = offset


class CollectionError(NvattestError):
    """The driver, the fabric library or a recorded source did not give evidence."""

    default_code = "collection"
    default_result_code = ResultCode.NVML_ERROR


class CollateralError(NvattestError):
    """A RIM, a revocation answer or a remote verdict could not be obtained.

    ``passing``: a later attempt may fare better, since there was no connection, or the server itself failed (5xx).
    """

    passing: bool = False
    default_code = "collateral"
    default_result_code = ResultCode.RIM_INTERNAL_ERROR


class PolicyError(NvattestError):
    """A policy that cannot be read, compiled or evaluated. Never a verdict."""

    default_code = "policy"
    default_result_code = ResultCode.POLICY_EVALUATION_ERROR


class TokenError(NvattestError):
    """A token that must not be believed; ``code`` says which rule it broke."""

    default_code = "token"
    default_result_code = ResultCode.NRAS_TOKEN_INVALID


class NotTrustedError(NvattestError):
    """Raised by ``require()`` of an appraisal or a verified token; ``result_code`` is theirs."""

    default_code = "not-trusted"
    default_result_code = ResultCode.OVERALL_RESULT_FALSE
