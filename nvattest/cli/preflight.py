"""``nvattest preflight``: before a driver or VBIOS rollout, say what attestation will find afterwards."""

from __future__ import annotations

import argparse

from nvattest.cli import network, targets
from nvattest.cli.output import say
from nvattest.errors import ResultCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Versions, files or live devices, and the network."""
    targets.add_target_options(parser)
    network.add_url_options(parser.add_argument_group("services"))
    network.add_network_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print what there is; the exit status is 0, or the code of the first thing that is missing or bad."""
    from nvattest._documents import dump_json
    from nvattest.appraisal.policy import RevocationMode
    from nvattest.appraisal.verifier import Verifier
    from nvattest.cli.sources import trust_anchors
    from nvattest.collateral.gather import gather_needs
    from nvattest.collateral.preflight import preflight, render_preflight
    from nvattest.session import now

    verifier = Verifier(anchors=trust_anchors(options))
    needs = targets.needs_of_options(options, verifier, options.at or now())
    # What the responders say now is the question, unless nobody may be asked.
    mode = RevocationMode.WITHIN_WINDOW if options.offline else RevocationMode.FRESH
    collateral = gather_needs(needs, network.gather_options(options, mode), at=options.at or now(), verifier=verifier)
    network.say_what_was_not_asked(options, collateral)
    facts = preflight(needs, collateral, verifier, options.at or now())
    if options.format == "json":
        print(dump_json(facts))
    else:
        say(render_preflight(facts))
    code = facts["result_code"]
    if facts["ready"] is True:
        return 0
    return (ResultCode(code) if isinstance(code, int) else ResultCode.UNKNOWN).exit_status or 1
