"""What the evidence is judged with: anchors, policy, and collateral (bundle, then cache, then network)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Final

from nvattest._folder import read_bounded
from nvattest._registry import OCSP_URL, RIM_URL
from nvattest.appraisal.inputs import Collateral, EvidencePolicy, TopologyRule
from nvattest.appraisal.memory import ReadEvidence
from nvattest.appraisal.verifier import Verifier
from nvattest.collateral.bundle import MAXIMUM_BUNDLE, load_bundle
from nvattest.collateral.cache import DiskCache
from nvattest.collateral.gather import GatherOptions, gather
from nvattest.collateral.http import RETRIES, HttpSettings
from nvattest.errors import InputError
from nvattest.guest.clock import Budget, give_up_after
from nvattest.guest.config import HookConfig, Settings
from nvattest.guest.driver import Expected
from nvattest.model import VerificationTime
from nvattest.pki.anchors import NVIDIA_ANCHORS, TrustAnchors, trust_anchors_from_pem

_SMALL: Final = 256 * 1024
_CONNECT_SECONDS: Final = 2.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0


def load_demands(settings: Settings) -> tuple[TrustAnchors, EvidencePolicy]:
    """The trust anchors and the evidence policy that the configuration names; NVIDIA's and the strict one without.

    Raises:
        NvattestError: a file cannot be read, or is no such file.
    """
    config = settings.config
    anchors = NVIDIA_ANCHORS
    path = settings.place(config.trust_anchors)
    if path is not None:
        anchors = trust_anchors_from_pem(read_bounded(path, _SMALL))
    policy = EvidencePolicy()
    path = settings.place(config.policy)
    if path is not None:
        from nvattest.policy import load_evidence_policy

        policy = load_evidence_policy(read_bounded(path, _SMALL), source=config.policy or path)
    return anchors, policy


def with_expectations(policy: EvidencePolicy, expected: Expected, config: HookConfig) -> EvidencePolicy:
    """The policy with the numbers of devices, and with a topology that has to close in protected PCIe mode.

    Raises:
        InputError: policy and configuration expect different numbers (``hook-config``).
    """
    for name, wanted in (("expected_gpus", config.expected_gpus), ("expected_switches", config.expected_switches)):
        said = getattr(policy, name)
        if said is not None and wanted is not None and said != wanted:
            raise InputError(
                f"the configuration has {name} = {wanted}, the policy has {said}",
                code="hook-config",
                hint="say it in one place only",
            )
    return replace(
        policy,
        expected_gpus=expected.gpus if policy.expected_gpus is None else policy.expected_gpus,
        expected_switches=expected.switches if policy.expected_switches is None else policy.expected_switches,
        topology=TopologyRule.REQUIRED if expected.protected_pcie else policy.topology,
    )


def load_known(settings: Settings, find: Callable[[str, str], None]) -> Collateral:
    """The bundle's collateral. One that cannot be used is a finding: cache and network may still have everything."""
    named = settings.config.collateral_bundle
    path = settings.place(named) or settings.paths.bundle
    try:
        return load_bundle(read_bounded(path, MAXIMUM_BUNDLE), origin=path)
    except InputError as error:
        if named is not None or os.path.lexists(path):
            find("bundle", f"the bundle cannot be used: {error.message}")
        return Collateral()


def gather_collateral(
    devices: Sequence[ReadEvidence],
    known: Collateral,
    settings: Settings,
    *,
    verifier: Verifier,
    at: VerificationTime,
    budget: Budget,
    find: Callable[[str, str], None],
    patient: bool = False,
) -> Collateral:
    """What these devices need beyond ``known``, from the cache and the network, as far as the time goes.

    ``patient`` asks again, while there is time, for what a network that comes up late may still give: in longer and
    longer intervals, and each host that still fails only once. What could not be had is in the result with its reason,
    and fails its check later.
    """
    config = settings.config
    rim_url, ocsp_url = config.collateral_rim_url or RIM_URL, config.collateral_ocsp_url or OCSP_URL
    key_file = settings.place(config.collateral_service_key_file)
    key = "" if key_file is None else read_bounded(key_file, 4096).decode("ascii", "replace").strip()
    cache = None
    folder = settings.place(config.collateral_cache)
    if folder is not None:
        try:
            cache = DiskCache(folder)
        except InputError as error:
            find("cache", error.message)
    found, started, pause, first, retries = known, time.monotonic(), _FIRST_PAUSE, "", RETRIES
    while True:
        seconds = budget.for_phase()
        if seconds <= 0.0:
            find("deadline", "no time was left for the cache and the network")
            return found
        options = GatherOptions(
            rim_url=rim_url,
            ocsp_url=ocsp_url,
            http=HttpSettings(
                service_key=key,
                key_hosts=(rim_url, ocsp_url),
                tls_ca_cert=settings.place(config.collateral_ca_file),
                connect_timeout=min(_CONNECT_SECONDS, seconds),
                read_timeout=seconds,
                retries=retries,
            ),
            timeout=seconds,
            revocation=verifier.policy.revocation,
            cache=cache,
            offline=not config.collateral_network,
        )
        # gather's own deadline bounds its exchanges; this one also bounds what no deadline reaches, such as a resolver.
        found = give_up_after(
            seconds + 0.2,
            "collateral",
            partial(gather, devices, options, at=at, known=known, verifier=verifier),
        )
        late = [item for item in found.unavailable.values() if item.passing]
        if not (patient and late and config.collateral_network) or budget.for_phase() <= pause:
            break
        first = first or late[0].message
        time.sleep(pause)
        pause, retries = min(2 * pause, _LONGEST_PAUSE), 0
        # A network that comes up may set the clock; answers that came are not asked for again.
        at = VerificationTime.at(max(at.device, datetime.now(timezone.utc)))
        known = Collateral(rims=found.rims, ocsp=found.ocsp)
    if first and not late:
        waited = time.monotonic() - started
        find("network", f"RIMs or revocation answers came only after {waited:.0f} s; at first: {first}")
    return found
