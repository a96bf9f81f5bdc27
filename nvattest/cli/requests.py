"""What a command is asked for: options, and beside them the frozen requests that they become.

A command turns its parsed arguments into requests once; everything that it calls takes requests.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from nvattest._registry import KDS_URL, NRAS_URL, OCSP_URL, PCS_URL, RIM_URL
from nvattest._text import hex_bytes
from nvattest.cli.arguments import (
    REQUIRED,
    VALIDATION,
    ArgumentError,
    choice,
    converted,
    existing_directory,
    existing_file,
    from_environment,
    input_file,
    input_path,
    output_file,
    seconds,
)
from nvattest.cli.output import say
from nvattest.errors import InputError
from nvattest.model import DeviceKind, VerificationTime

if TYPE_CHECKING:
    from nvattest.collateral.http import HttpSettings

HASHES = ("sha-1", "sha-256", "sha-384")
TOKEN_FORMATS = ("detached-eat", "ear")
_KINDS = {
    "gpu": (DeviceKind.GPU,),
    "nvswitch": (DeviceKind.NVSWITCH,),
    "all": (DeviceKind.GPU, DeviceKind.NVSWITCH),
}

T = TypeVar("T", bound=NamedTuple)


def read(kind: type[T], options: argparse.Namespace, **more: object) -> T:
    """A request whose fields have the names of options; ``more`` has those that have not."""
    named = {name: getattr(options, name) for name in kind._fields if name not in more}
    return kind(**named, **more)  # type: ignore[call-overload,no-any-return]


def given(options: argparse.Namespace) -> frozenset[str]:
    """The options that the command line names; the others have their defaults."""
    return frozenset(getattr(options, "_given", ()))


def ignored(options: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Warn of each of these options that the command line names: it has no effect."""
    named = given(options)
    for name in names:
        if name in named and warns(options):
            say(f"warning: --{name.replace('_', '-')} is ignored: {why}", error=True)


def warns(options: argparse.Namespace) -> bool:
    """Whether the log level lets warnings through."""
    return options.log_level not in ("error", "off")


# --- evidence ---------------------------------------------------------------------------------------------------------


class EvidenceSource(NamedTuple):
    """The kinds of devices asked for, and the files of those that are recorded; the driver is asked for the others."""

    kinds: tuple[DeviceKind, ...]
    files: Mapping[DeviceKind, str]
    nonce: str = ""
    corelib: bool = False
    allow_devtools: bool = False
    timeout: float = 30.0

    @property
    def live(self) -> bool:
        """Whether a driver is asked."""
        return any(kind not in self.files for kind in self.kinds)


def add_evidence_options(parser: argparse.ArgumentParser) -> None:
    """Which devices, and who gives their evidence."""
    group = parser.add_argument_group("evidence")
    group.add_argument("--nonce", default="", metavar="HEX", help="the 32 bytes that the report has to answer")
    group.add_argument(
        "-d", "--device", type=choice(*_KINDS), default="gpu", metavar="KIND", help="gpu (the default), nvswitch or all"
    )
    group.add_argument(
        "--gpu-evidence-source", type=choice("nvml", "corelib", "file"), default="nvml", metavar="SOURCE",
        help="nvml (the default), corelib, or file (the default with a file)",
    )  # fmt: skip
    group.add_argument("--gpu-architecture", default="", metavar="NAME", help="blackwell; needed with corelib")
    group.add_argument(
        "--gpu-evidence-file", default="", metavar="FILE",
        help="recorded evidence; a file of both kinds is named for both",
    )  # fmt: skip
    group.add_argument(
        "--nvswitch-evidence-source", type=choice("nscq", "file"), default="nscq", metavar="SOURCE",
        help="nscq (the default), or file (the default with a file)",
    )  # fmt: skip
    group.add_argument("--nvswitch-evidence-file", default="", metavar="FILE", help="recorded evidence")
    group.add_argument(
        "--allow-devtools", action="store_true",
        help="for development: also collect from GPUs in DevTools mode; only a --policy with allow_debug trusts them",
    )  # fmt: skip
    group.add_argument(
        "--driver-timeout", type=seconds, default=30.0, metavar="SECONDS", help="for all driver calls together (30)"
    )


def evidence_source(options: argparse.Namespace) -> EvidenceSource:
    """The source that the options name; options of devices not asked for are ignored with a warning.

    A file that is named without a source is the source: otherwise a verdict on this machine's devices would pass for
    one on the file.

    Raises:
        ArgumentError: a file that is needed is not named or not there, or an architecture that cannot be named.
    """
    kinds, named, files = _KINDS[options.device], given(options), {}
    for kind in kinds:
        name = f"{kind.value}_evidence"
        chosen = getattr(options, f"{name}_source") == "file"
        if chosen or (f"{name}_file" in named and f"{name}_source" not in named):
            files[kind] = _needed_file(getattr(options, f"{name}_file"), f"--{name.replace('_', '-')}-file")
    corelib = options.gpu_evidence_source == "corelib" and DeviceKind.GPU in kinds
    if DeviceKind.GPU in kinds:
        if options.gpu_architecture and options.gpu_architecture.upper() != "BLACKWELL":
            raise ArgumentError("--gpu-architecture: only blackwell can be named", VALIDATION)
        if corelib and not options.gpu_architecture:
            raise ArgumentError("--gpu-architecture: required when the source is corelib", VALIDATION)
    for kind, word, others in (
        (DeviceKind.GPU, "GPU", ("gpu_evidence_source", "gpu_evidence_file", "gpu_architecture")),
        (DeviceKind.NVSWITCH, "switch", ("nvswitch_evidence_source", "nvswitch_evidence_file")),
    ):
        if kind not in kinds:
            ignored(options, others, f"--device {options.device} asks for no {word}; --device all asks for both kinds")
        elif kind not in files:
            chosen = getattr(options, f"{kind.value}_evidence_source")
            ignored(options, [f"{kind.value}_evidence_file"], f"the source is {chosen}, which is named too")
    if DeviceKind.GPU in kinds and not corelib:
        ignored(options, ["gpu_architecture"], "only the source corelib needs it")
    if len(files) == len(kinds):
        ignored(options, ["allow_devtools", "driver_timeout"], "all evidence is from files, and no driver is asked")
    return EvidenceSource(
        kinds, files, options.nonce, corelib, allow_devtools=options.allow_devtools, timeout=options.driver_timeout
    )


def _needed_file(path: str, option: str) -> str:
    if not path:
        raise ArgumentError(f"{option}: must be provided when the evidence source is file", VALIDATION)
    try:
        return input_file(path)
    except argparse.ArgumentTypeError as error:
        raise ArgumentError(f"{option}: {error}", VALIDATION) from None


def kinds_of(device: str) -> tuple[DeviceKind, ...]:
    """The kinds that a value of ``--device`` stands for."""
    return _KINDS[device]


def add_evidence_files(group: argparse._ArgumentGroup) -> None:
    """Recorded evidence of devices."""
    group.add_argument("--gpu-evidence-file", type=input_file, metavar="FILE", help="JSON of collect-evidence")
    group.add_argument("--nvswitch-evidence-file", type=input_file, metavar="FILE", help="JSON of collect-evidence")


def evidence_files(options: argparse.Namespace) -> tuple[str, ...]:
    """The files of ``add_evidence_files``."""
    return tuple(path for path in (options.gpu_evidence_file, options.nvswitch_evidence_file) if path is not None)


# --- services and collateral ------------------------------------------------------------------------------------------


class Access(NamedTuple):
    """What a service wants to see, and whom TLS trusts."""

    service_key: str
    tls_ca_cert: str | None
    tls_ca_path: str | None

    def __repr__(self) -> str:
        # A key must not appear in a log.
        return "Access(...)"

    def http(self, *base_urls: str) -> HttpSettings:
        """Settings with which the services of ``base_urls``, and no others, see the key.

        Raises:
            InputError: a key that cannot stand in a header.
        """
        from nvattest.collateral.http import HttpSettings

        return HttpSettings(
            service_key=self.service_key,
            key_hosts=base_urls,
            tls_ca_cert=self.tls_ca_cert,
            tls_ca_path=self.tls_ca_path,
        )

    def roots(self, url: str | None) -> str | None:
        """What vouches for the keys fetched from ``url``, in words; None where that was not over TLS."""
        from nvattest.collateral.http import usual_roots

        if url is None or not url.startswith("https://"):
            return None
        named = [("--tls-ca-cert", self.tls_ca_cert), ("--tls-ca-path", self.tls_ca_path)]
        return " and ".join([usual_roots()[0] or "the usual roots", *(name for name, path in named if path)])


def add_access_options(group: argparse._ArgumentGroup) -> None:
    """The options of ``Access``."""
    group.add_argument(
        "--service-key", default=from_environment("NV_ATTESTATION_SERVICE_KEY", "", _service_key), metavar="KEY",
        help="sent to the configured hosts over https (better in NV_ATTESTATION_SERVICE_KEY than here)",
    )  # fmt: skip
    add_tls_options(group)


def add_tls_options(group: argparse._ArgumentGroup, *, checked: bool = True) -> None:
    """Whom TLS trusts. Without ``checked`` the command reports paths that do not exist."""
    file, folder = (existing_file, existing_directory) if checked else (str, str)
    group.add_argument(
        "--tls-ca-cert", type=file, default=from_environment("NVAT_TLS_CA_CERT", "", file) or None, metavar="PEM",
        help="trust these roots for TLS besides the usual ones (NVAT_TLS_CA_CERT)",
    )  # fmt: skip
    group.add_argument(
        "--tls-ca-path", type=folder, default=from_environment("NVAT_TLS_CA_PATH", "", folder) or None,
        metavar="DIR", help="the same, a folder that c_rehash has prepared (NVAT_TLS_CA_PATH)",
    )  # fmt: skip


def _service_key(text: str) -> str:
    from nvattest.collateral.http import is_service_key

    if not is_service_key(text):
        # Not the value: a warning must not publish a key.
        raise argparse.ArgumentTypeError("it has characters that a header cannot carry")
    return text


class GuestSource(NamedTuple):
    """The quote of a guest whose CPU's collateral is wanted, where the makers of CPUs are asked, and their roots."""

    tee_quote: str | None
    cpu_anchors: str | None
    pcs_url: str
    kds_url: str


def add_cpu_anchors(group: argparse._ActionsContainer) -> None:
    """Other roots of CPUs."""
    group.add_argument(
        "--cpu-anchors", type=input_file, metavar="PEM",
        help="for tests: judge CPU collateral by these roots, not by the makers'",
    )  # fmt: skip


def add_guest_source(group: argparse._ArgumentGroup) -> None:
    """The options of ``GuestSource``."""
    group.add_argument(
        "--tee-quote", type=input_file, metavar="FILE",
        help="the quote of a guest (of --bind-tee, or a raw one), for its CPU's collateral; where no device is named, "
        "for that alone",
    )  # fmt: skip
    add_cpu_anchors(group)
    group.add_argument(
        "--pcs-url", default=from_environment("NVATTEST_PCS_URL", PCS_URL), metavar="URL",
        help="Intel's certification service, or a PCCS (NVATTEST_PCS_URL)",
    )  # fmt: skip
    group.add_argument(
        "--kds-url", default=from_environment("NVATTEST_KDS_URL", KDS_URL), metavar="URL",
        help="AMD's key distribution service (NVATTEST_KDS_URL)",
    )  # fmt: skip


class Services(NamedTuple):
    """How RIMs and revocation answers are asked for, and the cache that is asked first.

    ``named`` are the options on the command line, as against defaults and variables; ``warn`` lets warnings through.
    """

    rim_url: str
    ocsp_url: str
    ocsp_cert_id_hash: str
    access: Access
    timeout: float
    cache_dir: str | None
    no_cache: bool
    offline: bool
    named: frozenset[str]
    warn: bool


def add_url_options(group: argparse._ArgumentGroup) -> None:
    """The URLs of the RIM service and of the OCSP responder."""
    group.add_argument(
        "--rim-url", default=from_environment("NVAT_RIM_SERVICE_BASE_URL", RIM_URL), metavar="URL",
        help="RIM service (NVAT_RIM_SERVICE_BASE_URL)",
    )  # fmt: skip
    group.add_argument(
        "--ocsp-url", default=from_environment("NVAT_OCSP_BASE_URL", OCSP_URL), metavar="URL",
        help="OCSP service (NVAT_OCSP_BASE_URL); aia for the responder that each certificate names",
    )  # fmt: skip


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """How the network is used, and the cache before it."""
    group = parser.add_argument_group("network and cache")
    add_access_options(group)
    group.add_argument(
        "--ocsp-cert-id-hash", type=choice(*HASHES),
        default=from_environment("NVAT_OCSP_CERT_ID_HASH_ALGORITHM", "sha-256", choice(*HASHES)), metavar="HASH",
        help="sha-1, sha-256 (the default) or sha-384 (NVAT_OCSP_CERT_ID_HASH_ALGORITHM)",
    )  # fmt: skip
    group.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="SECONDS",
        help="limit for everything over the network together, retries included (60)",
    )  # fmt: skip
    group.add_argument(
        "--cache-dir", default=from_environment("NVATTEST_CACHE_DIR", "") or None, metavar="DIR",
        help="where RIMs and revocation answers are kept (NVATTEST_CACHE_DIR, else ~/.cache/nvattest)",
    )  # fmt: skip
    group.add_argument("--no-cache", action="store_true", help="keep nothing and use nothing that was kept")
    group.add_argument("--offline", action="store_true", help="make no request: the cache is all there is")


def services(options: argparse.Namespace) -> Services:
    """The services of ``add_url_options`` and ``add_network_options``.

    Raises:
        ArgumentError: a cache folder with ``--no-cache``.
    """
    if options.no_cache and "cache_dir" in given(options):
        raise ArgumentError("--cache-dir: cannot go with --no-cache, which uses none", VALIDATION)
    return read(Services, options, access=read(Access, options), named=given(options), warn=warns(options))


_SERVICE_OPTIONS = ("rim_url", "ocsp_url", "ocsp_cert_id_hash", "timeout", "service_key", "tls_ca_cert", "tls_ca_path")


def add_bundle_option(group: argparse._ActionsContainer, text: str, *, required: bool = False) -> None:
    """``--bundle``, a file or a folder; several together are one bundle."""
    group.add_argument(
        "--bundle", action="append", default=[], required=required, type=input_path, metavar="FILE",
        help=f"{text}; may be repeated",
    )  # fmt: skip


class CollateralSource(NamedTuple):
    """Where RIMs and revocation answers come from: bundles alone, or the services, with RIMs of a folder first."""

    bundles: tuple[str, ...]
    rim_dir: str | None
    services: Services


def add_collateral_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``CollateralSource``."""
    group = parser.add_argument_group("collateral")
    add_bundle_option(group, "RIMs and revocation answers from this file or folder, and nothing from the network")
    group.add_argument(
        "--rim-store", type=choice("remote", "dir"), default="remote", metavar="STORE",
        help="remote (the default), or dir (the default with --rim-dir)",
    )  # fmt: skip
    group.add_argument("--rim-dir", type=existing_directory, default=".", metavar="DIR", help="folder of RIMs")
    add_url_options(group)
    add_network_options(parser)


def collateral_source(options: argparse.Namespace) -> CollateralSource:
    """The source that the options name. A folder named without a store is the store, as with an evidence file.

    Raises:
        ArgumentError: a folder of RIMs beside a bundle, or a cache folder with ``--no-cache``.
    """
    named = given(options)
    folder = options.rim_store == "dir" or ("rim_dir" in named and "rim_store" not in named)
    if options.bundle:
        if folder:
            raise ArgumentError("--rim-dir: cannot go with --bundle, which has the RIMs", VALIDATION)
        ignored(options, (*_SERVICE_OPTIONS, "cache_dir"), "--bundle has all collateral, and no service is asked")
    else:
        if not folder:
            ignored(options, ["rim_dir"], "the store is remote, which is named too")
        if options.offline:
            ignored(options, _SERVICE_OPTIONS, "--offline asks no service")
    return CollateralSource(tuple(options.bundle), options.rim_dir if folder else None, services(options))


# --- verification -----------------------------------------------------------------------------------------------------


class Demands(NamedTuple):
    """What the caller demands of the evidence and of the claims, when, and under whose roots."""

    policy: str | None
    relying_party_policy: str | None
    cached_revocation: bool
    policy_overrides_appraisal: bool
    at: VerificationTime | None
    trust_anchors: str | None
    claims_version: str


def add_demand_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The options of ``Demands``; returns their group."""
    group = parser.add_argument_group("verification")
    group.add_argument("--policy", type=input_file, metavar="FILE", help="evidence policy, TOML or JSON")
    group.add_argument(
        "--relying-party-policy", type=input_file, metavar="FILE", help="what you demand of the claims: Rego or JSON"
    )
    group.add_argument(
        "--cached-revocation", action="store_true",
        help="with a relying party's policy too, take revocation answers from the cache; by default they are asked for "
        "anew, since policies may demand x-nvidia-cert-ocsp-nonce-matches",
    )  # fmt: skip
    group.add_argument(
        "--policy-overrides-appraisal", action="store_true",
        help="the relying party's policy alone decides on values, validity and revocation; the token says so",
    )  # fmt: skip
    _add_time_and_roots(group, "judge validity at this time, or device=TIME,rim=TIME; now by default")
    group.add_argument(
        "--claims-version", type=choice("2.0", "3.0", "4.0"), default="4.0", metavar="VERSION",
        help="version of the GPU claims: 2.0, 3.0 or 4.0 (the default); switches have 3.0 beside 4.0",
    )  # fmt: skip
    return group


class Judgement(NamedTuple):
    """When validity is judged (None: now), and under whose roots (None: NVIDIA's)."""

    at: VerificationTime | None
    trust_anchors: str | None


def add_judgement_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``Judgement``."""
    _add_time_and_roots(parser.add_argument_group("verification"), "judge validity at this time; now by default")


def _add_time_and_roots(group: argparse._ArgumentGroup, when: str) -> None:
    group.add_argument("--at", type=converted(VerificationTime.parse), metavar="TIME", help=when)
    group.add_argument(
        "--trust-anchors", type=input_file, default=os.environ.get("NVATTEST_TRUST_ANCHORS") or None, metavar="PEM",
        help="trust these roots instead of NVIDIA's; every output says so (NVATTEST_TRUST_ANCHORS)",
    )  # fmt: skip


class RemoteRequest(NamedTuple):
    """Another verifier than this program: NVIDIA's service, and which of its answers are accepted."""

    nras_url: str
    refuse_weakened: bool
    accept_simulated: bool


def add_remote_options(parser: argparse.ArgumentParser) -> None:
    """Who verifies."""
    group = parser.add_argument_group("verifier")
    group.add_argument(
        "--verifier", type=choice("local", "remote"), default="local", metavar="WHERE",
        help="local (the default), or remote: NVIDIA's attestation service verifies, its signed answer is checked here",
    )  # fmt: skip
    group.add_argument(
        "--nras-url", default=from_environment("NVAT_NRAS_BASE_URL", NRAS_URL), metavar="URL",
        help="NVIDIA's remote attestation service (NVAT_NRAS_BASE_URL); every output names another one",
    )  # fmt: skip
    group.add_argument(
        "--refuse-weakened", action="store_true", help="refuse the answer of another remote service than NVIDIA's own"
    )
    group.add_argument(
        "--accept-simulated", action="store_true",
        help="for tests: accept a remote service's answer about simulated devices",
    )  # fmt: skip


# --- tokens -----------------------------------------------------------------------------------------------------------


class TokenRequest(NamedTuple):
    """Which token is issued, signed by whom, and where it goes."""

    token_format: str
    token_out: str
    signing_key: str | None
    issuer: str
    jwks_out: str
    token_lifetime: int
    claims_version: str


def add_token_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``TokenRequest``."""
    group = parser.add_argument_group("token")
    group.add_argument(
        "--token-format", type=choice(*TOKEN_FORMATS), default=TOKEN_FORMATS[0], metavar="FORMAT",
        help="detached-eat (the default; NVIDIA's shape) or ear (EAT attestation result)",
    )  # fmt: skip
    group.add_argument(
        "--token-out", type=output_file, default="", metavar="FILE",
        help="write the token here, whole or not at all, for its owner only",
    )  # fmt: skip
    group.add_argument(
        "--signing-key", type=input_file, metavar="PEM",
        help="sign with this P-384 key; without it a key is made for this run and forgotten",
    )  # fmt: skip
    group.add_argument("--issuer", default="", metavar="TEXT", help="iss of the token (NVATTEST-LOCAL-VERIFIER)")
    group.add_argument(
        "--jwks-out", type=output_file, default="", metavar="FILE",
        help="write the public half of the key here, as JWKS",
    )  # fmt: skip
    group.add_argument(
        "--token-lifetime", type=int, default=3600, metavar="SECONDS", help="how long the token is good (3600)"
    )


class BindingRequest(NamedTuple):
    """What binds a token to the CPU: the challenge, and the file for a quote over challenge, key and evidence."""

    challenge: bytes | None
    bind_tee: str
    tsm_root: str
    extend_rtmr: str | None

    @property
    def asked(self) -> bool:
        """Whether any option of a binding is given."""
        return self.challenge is not None or bool(self.bind_tee) or self.extend_rtmr is not None


def add_binding_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``BindingRequest``."""
    group = parser.add_argument_group("binding to the CPU TEE")
    add_challenge(
        group, "the relying party's challenge; the devices' nonce is derived from it and from the token's key"
    )
    group.add_argument(
        "--bind-tee", type=output_file, default="", metavar="FILE",
        help="write a quote of the CPU here that covers the challenge, the token's key and all raw evidence",
    )  # fmt: skip
    group.add_argument("--tsm-root", default="", metavar="DIR", help="where the kernel gives quotes (configfs-tsm)")
    group.add_argument(
        "--extend-rtmr", type=choice("2", "3"), metavar="N",
        help="extend this runtime register with the evidence digest first, where the kernel offers registers",
    )  # fmt: skip


class GuestRequest(NamedTuple):
    """What ties the devices to a guest: its CPU's quote, how its report data is computed, and what is demanded."""

    challenge: bytes | None
    tee_quote: str | None
    tee_collateral: list[str] | None
    cpu_policy: str | None
    cpu_anchors: str | None
    expected_report_data: bytes | None
    tee_recipe: str | None
    tee_input: list[str] | None

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Options that judge the guest beside a token."""
        group = parser.add_argument_group("the guest")
        group.add_argument(
            "--tee-quote", type=input_file, metavar="FILE",
            help="the quote of --bind-tee (or a raw one): check what it covers; with --cpu-policy also judge the guest",
        )  # fmt: skip
        group.add_argument(
            "--cpu-policy", type=input_file, metavar="FILE",
            help="what is demanded of the guest; the quote's signature and all that endorses it are then verified",
        )  # fmt: skip
        group.add_argument(
            "--tee-collateral", type=input_file, action="append", metavar="FILE",
            help="the CPU maker's collateral: Intel's JSON document, AMD's certificates and list (repeat it), a bundle",
        )  # fmt: skip
        group.add_argument(
            "--expected-report-data", type=converted(_report_data), metavar="HEX",
            help="your own recipe's result, in the place of --challenge",
        )  # fmt: skip
        group.add_argument(
            "--tee-recipe",
            type=choice(*RECIPES),
            metavar="NAME",
            help="a known recipe in its place: " + ", ".join(RECIPES),
        )
        group.add_argument(
            "--tee-input", action="append", metavar="NAME=VALUE", help="an input of the recipe; @FILE reads its value"
        )
        group.add_argument(
            "--cpu-anchors", type=input_file, metavar="PEM",
            help="for tests: judge the quote by these roots, not by the makers'",
        )  # fmt: skip

    def check(self, nonce: str) -> None:
        """Refuse options that miss each other.

        Raises:
            ArgumentError: see the messages.
        """
        ways = [self.challenge is not None, self.expected_report_data is not None, self.tee_recipe is not None]
        if self.tee_quote is not None and sum(ways) != 1:
            raise ArgumentError(
                "--tee-quote is required to come with exactly one of --challenge, --expected-report-data and "
                "--tee-recipe",
                REQUIRED,
            )
        for name, given, needed, there in (
            ("--expected-report-data", ways[1], "--tee-quote", self.tee_quote),
            ("--tee-recipe", ways[2], "--tee-quote", self.tee_quote),
            ("--tee-input", self.tee_input, "--tee-recipe", self.tee_recipe),
            ("--cpu-policy", self.cpu_policy, "--tee-quote", self.tee_quote),
            ("--tee-collateral", self.tee_collateral, "--cpu-policy", self.cpu_policy),
            ("--cpu-anchors", self.cpu_anchors, "--cpu-policy", self.cpu_policy),
            ("--expected-report-data", ways[1], "--nonce", nonce),
            ("--tee-recipe", ways[2], "--nonce", nonce),
        ):
            if given and not there:
                raise ArgumentError(f"{name} is required to come with {needed}", REQUIRED)


# Named here so that --help needs no recipe; a test compares them with ``nvattest.tee.recipes``.
RECIPES: Final = ("coco-rcar", "tinfoil-v3", "address-nonce", "near", "chutes")


def _report_data(text: str) -> bytes:
    value = hex_bytes(text)
    if value is None or len(value) != 64:
        raise InputError(f"not 64 bytes of report data: {text[:80]!r}", code="report-data", hint="give 128 hex digits")
    return value


def add_challenge(group: argparse._ArgumentGroup, text: str) -> None:
    """``--challenge``: bytes in hexadecimal."""
    group.add_argument("--challenge", type=converted(_challenge), metavar="HEX", help=text)


def _challenge(text: str) -> bytes:
    value = hex_bytes(text)
    if not value:
        raise InputError(f"not a hexadecimal challenge: {text[:80]!r}", code="challenge")
    return value
