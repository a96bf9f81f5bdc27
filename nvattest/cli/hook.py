"""``nvattest hook``: what the guest hook did, and what keeps it from working: in the guest and in deployment files.

``nvattest gate -- COMMAND`` runs a command only on attested devices, as the first word of an entry point. It attests as
the hook does, with the same configuration and outputs: only a good verdict sets the GPUs ready and lets the command
take this process's place. A current verdict of the hook is used; a container that sees another ``/run/nvattest`` asks
the devices itself.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

from nvattest._system import read_bounded
from nvattest.cli.arguments import (
    REQUIRED,
    ArgumentError,
    add_command,
    add_options,
    command_of,
    existing_file,
    option,
    output_file,
    read,
    updated_file,
)
from nvattest.cli.output import say, write_file

if TYPE_CHECKING:
    from nvattest.guest.config import Paths

_HOOKS = "/usr/share/oci/hooks"


class DropIn(NamedTuple):
    """The runtime's configuration that gets a drop-in, and the extension image that has the hook, if there is one."""

    configuration: str
    image: str | None = option("FILE", "the extension image, as the node has it")
    verity: str | None = option("FILE", "its five fields, as make guest-layer wrote them", existing_file)
    name: str = option("NAME", "the extension's name (default: nvattest)", default="nvattest")
    hook_path: str = option(
        "DIR", f"guest_hook_path; default: in the extension, without one {_HOOKS}", default=argparse.SUPPRESS
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # Before the action too, as in 1.0.
    for names in ("--config", "--root", "--hook-path"):
        parser.add_argument(names, default="", help=argparse.SUPPRESS)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    status = actions.add_parser("status", help="in the guest: the last verdict and the ready state")
    status.add_argument(
        "--metrics", type=output_file, default="", metavar="FILE",
        help="also write them for Prometheus: a .prom file in the folder of node exporter's textfile collector",
    )  # fmt: skip
    check = actions.add_parser("check", help="in the guest: what silently keeps the hook from working")
    check.add_argument(
        "--hook-path", default=argparse.SUPPRESS, metavar="DIR",
        help=f"the guest_hook_path of the Kata configuration; default: {_HOOKS}, also in extension images",
    )  # fmt: skip
    for action in (status, check):
        add_guest_options(action, default=argparse.SUPPRESS)
    lint = actions.add_parser("lint", help="on any machine: what in a deployment's files keeps the hook from gating")
    lint.add_argument(
        "files", nargs="+", type=existing_file, metavar="FILE",
        help="a runtime's configuration.toml (config.d beside it is read too), drop-ins, components.toml, "
        "initdata.toml, a policy (.rego), Helm values, RuntimeClasses and pods (YAML needs PyYAML)",
    )  # fmt: skip
    write = actions.add_parser("drop-in", help="on a node: write the drop-in that puts the hook into its runtime")
    write.add_argument(
        "configuration", type=existing_file, metavar="FILE", help="the runtime's configuration.toml on this node"
    )
    add_options(write, DropIn)
    manifest = actions.add_parser("manifest", help="put the watch into the manifest of a copy of the extension coco")
    manifest.add_argument("manifest", type=existing_file, metavar="FILE", help="etc/kata-extensions/components.toml")
    manifest.add_argument(
        "--gate", action="store_true",
        help="let the agent serve nothing before a verdict stands; the image needs a bundle then",
    )  # fmt: skip
    for action in (write, manifest):
        action.add_argument("--output", type=updated_file, metavar="FILE", help="where to write it (default: print it)")


def add_guest_options(parser: argparse.ArgumentParser, *, default: str = "") -> None:
    """Where the guest and its configuration are; ``guest_paths`` reads them."""
    parser.add_argument(
        "--config", default=default, metavar="FILE",
        help="the configuration in the place of /etc/nvattest/hook.toml, as nvattest-hook is given it",
    )  # fmt: skip
    parser.add_argument("--root", default=default, metavar="DIR", help="put DIR before every path of the guest")


def guest_paths(root: str, config: str) -> Paths:
    """The places that the options name."""
    from nvattest.guest.config import Paths

    if config and not config.startswith("/"):
        raise ArgumentError(f"--config: expected an absolute path, found {config!r}")
    return Paths(root, config)


def run(options: argparse.Namespace) -> int:
    """Print or write what is asked for; 0 for a current verdict, or where no finding is an error."""
    if options.action in ("status", "check"):
        from nvattest._system import require_linux

        require_linux(f"hook {options.action}")
        from nvattest.guest.check import check_guest, print_findings
        from nvattest.guest.entry import print_status

        paths = guest_paths(options.root, options.config)
        if options.action == "status":
            return print_status(paths, options.format, options.metrics)
        return print_findings(check_guest(paths, hook_folder=options.hook_path), options.format)
    if options.action == "lint":
        from nvattest.guest.check import print_findings
        from nvattest.guest.kata import lint_files

        return print_findings(lint_files(options.files), options.format)
    if options.action == "drop-in":
        text = _drop_in(read(DropIn, options))
    else:
        text = _manifest(options.manifest, gate=options.gate)
    if options.output is None:
        say(text.rstrip("\n"))
    else:
        write_file(options.output, text)
    return 0


def _drop_in(request: DropIn) -> str:
    from nvattest.guest.config import Paths
    from nvattest.guest.extension import check_extension, parse_verity_params
    from nvattest.guest.kata import Extension, drop_in, read_runtime

    if (request.image is None) != (request.verity is None):
        raise ArgumentError("--image and --verity go together")
    extension, inside = None, _HOOKS
    if request.image is not None and request.verity is not None:
        params = parse_verity_params(read_bounded(request.verity, 4096).decode("ascii", "replace"))
        check_extension(request.image, params)
        extension = Extension(request.name, request.image, str(params))
        inside = f"{Paths.EXTENSIONS}/{request.name}{_HOOKS}"
    return drop_in(read_runtime(request.configuration), hook_path=request.hook_path or inside, extension=extension)


def _manifest(path: str, *, gate: bool) -> str:
    from nvattest.guest.check import image_tree, manifest_findings
    from nvattest.guest.extension import add_process, our_entry

    text = read_bounded(path, 256 * 1024).decode("utf-8", "replace")
    merged = add_process(text, our_entry(gate=gate))
    for item in manifest_findings(merged.encode(), root=image_tree(path)):
        if item.severity != "ok":
            hint = f"; {item.hint}" if item.hint else ""
            say(f"{item.severity}: {item.message}{hint}", error=True)
    return merged


def add_arguments_gate(parser: argparse.ArgumentParser) -> None:
    parser.usage = "nvattest gate [options] -- COMMAND [ARGUMENT ...]"
    add_guest_options(parser)
    add_command(parser, "what to run on attested devices")


def run_gate(options: argparse.Namespace) -> int:
    """Attest; then become the command, or return the hook's exit status (see ``nvattest.guest.record``)."""
    from nvattest._system import require_linux

    require_linux("a gate")
    from nvattest.guest.arguments import Termination
    from nvattest.guest.entry import run_on_attested

    command = command_of(options)
    if not any(command[:1]):
        raise ArgumentError("gate: a command is required, after --", REQUIRED)
    paths = guest_paths(options.root, options.config)
    with Termination() as termination:
        return run_on_attested(paths, command, termination=termination)
