"""What is known of Kata Containers: how each generation of its agent runs a hook, and how its shim reads its files.

Read from kata-containers 3.0.0 to 4.1.0. From 3.1 on the agent's own reaper takes a hook's exit status first, so under
every agent of today the ready state of the GPUs is the gate, and the exit status is none.

The shim merges the files of ``config.d`` into a node's runtime configuration, in the order of their names: tables by
key; every other value, arrays and kernel parameters included, is replaced. So a drop-in repeats what it must keep.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from nvattest._folder import read_bounded
from nvattest.errors import InputError
from nvattest.guest.arguments import AGENT_SECONDS
from nvattest.guest.extension import parse_verity_params

# --- the agent --------------------------------------------------------------------------------------------------------


class Generation(NamedTuple):
    """One way of running hooks.

    Attributes:
        name: the versions, in words.
        first: the first version of it.
        last: the last one that was read, so that a later one is known as later.
        keeps_environment: a hook gets the agent's environment; otherwise an empty one.
        obeys_status: a status other than 0, or a timeout, fails the creation of the container.
        appends: a container whose spec has hooks gets the guest hooks too; otherwise it gets none of them.
        kills: a hook that has not ended after ten seconds is killed; otherwise it runs on beside the container.
        logs_failures: a failure is a line in the kernel log, and so is a good hook whose status the reaper took.
    """

    name: str
    first: tuple[int, int]
    last: tuple[int, int]
    keeps_environment: bool
    obeys_status: bool
    appends: bool
    kills: bool
    logs_failures: bool

    @property
    def promise(self) -> str:
        """What a hook guarantees under it, in a sentence."""
        if self.obeys_status:
            return "the exit status fails the container where on_failure is block, and the ready state is a gate too"
        if self.appends:
            return "the exit status is lost, so only the ready state is a gate"
        return (
            "the exit status is lost, so only the ready state is a gate; a container whose spec has hooks gets none of "
            "ours, so the pause run counts"
        )


GENERATIONS: Final = (
    Generation(
        name="3.0", first=(0, 0), last=(3, 0),
        keeps_environment=True, obeys_status=True, appends=True, kills=False, logs_failures=False,
    ),
    Generation(
        name="3.1 to 3.7", first=(3, 1), last=(3, 7),
        keeps_environment=False, obeys_status=False, appends=True, kills=False, logs_failures=False,
    ),
    Generation(
        name="3.8 to 3.32", first=(3, 8), last=(3, 32),
        keeps_environment=False, obeys_status=False, appends=False, kills=False, logs_failures=False,
    ),
    Generation(
        name="4.0 and 4.1", first=(4, 0), last=(4, 1),
        keeps_environment=False, obeys_status=False, appends=False, kills=True, logs_failures=True,
    ),
)  # fmt: skip
"""From the oldest to the newest."""

_VERSION: Final = re.compile(r"\bkata-agent(?: version)?[ :]+v?(\d{1,4})\.(\d{1,4})\.")
_HARMLESS: Final = (
    'the agent logged "hook failed" and "no exit code": its own reaper took the status first, and it says so of hooks '
    "that did their work too. The verdict is in /run/nvattest/state.json"
)
_LINE: Final = re.compile(r"kata-agent: hook failed: (.*)")


def version_of(text: str) -> tuple[int, int] | None:
    """The version in what ``kata-agent --version`` prints, or None."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2])) if found is not None else None


def generation_of(version: tuple[int, int]) -> Generation:
    """How an agent of this version runs hooks; one newer than all that were read counts as the newest."""
    return next(generation for generation in reversed(GENERATIONS) if version >= generation.first)


def kernel_log_failure(line: str) -> tuple[str, str] | None:
    """What a line of the kernel log says of our hook: a severity and a sentence, or None if it is not about it."""
    found = _LINE.search(line)
    if found is None or "nvattest-hook" not in found[1]:
        return None
    said = found[1].lower()
    # "no exit code" is what the agent says where its reaper took the status first, whatever the hook did.
    if "no exit code for hook" in said:
        return "ok", _HARMLESS
    if "timed out" in said or "timedout" in said or "communicate" in said:
        return "error", f"the agent gave the hook up after {AGENT_SECONDS} s and killed it"
    if "exit status with" in said:
        return "warning", "the hook ended with a status other than 0, which the agent logs and ignores"
    return "error", "the agent could not run the hook"


# --- the runtime ------------------------------------------------------------------------------------------------------

READY_PARAMETER: Final = "nvrc.smi.srs"
"""NVRC, the init of NVIDIA's guest image, sets the GPUs ready unattested where the kernel's command line has this."""

# A disk's serial is extension-NAME, and virtio keeps 20 bytes of it.
EXTENSION_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,10}")

_MAXIMUM: Final = 1024 * 1024
_ARRAY: Final = "guest_extension_images"

Table = Mapping[str, object]


class Extension(NamedTuple):
    """One member of ``guest_extension_images``; what is no text in the file is ""."""

    name: str
    path: str
    verity_params: str


class Runtime(NamedTuple):
    """The effective configuration, and the files that it is made of, in their order.

    ``hypervisor`` is the name of the one table below ``[hypervisor]``.
    """

    base: str
    layers: tuple[tuple[str, Table], ...]
    effective: Table
    hypervisor: str

    def value(self, key: str) -> object:
        """A value of the hypervisor's table, or None."""
        return at(at(self.effective, "hypervisor"), self.hypervisor).get(key)

    def values(self, key: str) -> list[tuple[str, object]]:
        """That value in each file that has it, with the file's name."""
        found = []
        for name, document in self.layers:
            table = at(at(document, "hypervisor"), self.hypervisor)
            if key in table:
                found.append((name, table[key]))
        return found

    def text(self, key: str) -> str:
        """A text of the hypervisor's table, or ""."""
        value = self.value(key)
        return value if isinstance(value, str) else ""

    @property
    def is_rust(self) -> bool:
        """Whether runtime-rs reads it; the Go runtime has other keys, and boots an image that has all in one."""
        base = self.layers[0][1]
        return "hypervisor_name" in at(base, "runtime") or bool(self.base_extensions)

    @property
    def extensions(self) -> tuple[Extension, ...]:
        """The extension images, in their order."""
        return _extensions(self.value(_ARRAY))

    @property
    def base_extensions(self) -> tuple[Extension, ...]:
        """Those that the base file has, before any drop-in."""
        return _extensions(at(at(self.layers[0][1], "hypervisor"), self.hypervisor).get(_ARRAY))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The kernel parameters that guests get."""
        return tuple(self.text("kernel_params").split())

    @property
    def lost_parameters(self) -> tuple[str, ...]:
        """Parameters of the base that a drop-in took away, but for the one that sets GPUs ready unattested."""
        first = self.values("kernel_params")
        before = str(first[0][1]).split() if first else []
        kept = set(self.parameters)
        return tuple(word for word in before if word not in kept and word.partition("=")[0] != READY_PARAMETER)


def read_runtime(base: str, drop_ins: Iterable[str] = ()) -> Runtime:
    """Read a configuration with the ``config.d`` beside it, and drop-ins from elsewhere as if they lay there.

    Raises:
        InputError: a file that cannot be read or is no TOML, a symbolic link in ``config.d``, which runtime-rs
            refuses, no hypervisor in the base, or a value of ours of another type (``kata-config``).
    """
    folder = os.path.join(os.path.dirname(base), "config.d")
    found = {}
    if os.path.isdir(folder):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                raise InputError(f"{path}: a symbolic link, which runtime-rs refuses", code="kata-config")
            if name.endswith(".toml"):
                found[name] = path
    found |= {os.path.basename(path): path for path in drop_ins}
    layers = tuple((path, _read(path)) for path in [base, *(found[name] for name in sorted(found))])
    tables = at(layers[0][1], "hypervisor")
    if len(tables) != 1:
        raise InputError(f"{base}: expected one table below [hypervisor], found {len(tables)}", code="kata-config")
    effective: Table = {}
    for path, document in layers:
        _require_types(at(at(document, "hypervisor"), next(iter(tables))), path)
        effective = _merged(effective, document)
    return Runtime(base, layers, effective, next(iter(tables)))


def _require_types(table: Table, path: str) -> None:
    # The shim starts no guest with another type. Read as nothing, it would be missing from a drop-in, with no message.
    wrong = [key for key in ("kernel_params", "guest_hook_path") if not isinstance(table.get(key, ""), str)]
    array = table.get(_ARRAY, [])
    if not isinstance(array, list) or not all(
        isinstance(item, dict) and all(isinstance(item.get(key, ""), str) for key in Extension._fields)
        for item in array
    ):
        wrong.append(_ARRAY)
    if wrong:
        raise InputError(f"{path}: the type of {wrong[0]} is none that the shim reads", code="kata-config")


def is_set_ready_at_boot(words: Iterable[str]) -> str:
    """The kernel parameter by which NVRC sets GPUs ready unattested, or "". The last of several counts."""
    ready = [word for word in words if word.partition("=")[0] == READY_PARAMETER]
    if not ready or ready[-1].partition("=")[2].lower() in ("0", "disabled"):
        return ""
    return ready[-1]


def drop_in(runtime: Runtime, *, hook_path: str, extension: Extension | None = None) -> str:
    """The text of a drop-in for this node: hook path, kernel parameters without the one that sets GPUs ready, and all
    extension images with ours as the last.

    Raises:
        InputError: the runtime boots an image that cannot have extensions, or its own are missing, or a name or the
            verity parameters are none (``kata-config``).
    """
    kept = [word for word in runtime.parameters if word.partition("=")[0] != READY_PARAMETER]
    lines = [
        f"# Written by nvattest hook drop-in from {os.path.basename(runtime.base)}. Write it again with each release",
        "# of Kata: the array and the parameters of this file take the place of the release's own.",
        f"[hypervisor.{runtime.hypervisor}]",
        f"guest_hook_path = {_quoted(hook_path)}",
        f"kernel_params = {_quoted(' '.join(kept))}",
    ]
    if extension is not None:
        if not runtime.is_rust:
            raise InputError(
                f"{runtime.base}: the Go runtime boots NVIDIA's image that has all in one, without veritysetup: NVRC "
                "stops a guest with an extension there",
                code="kata-config",
                hint="use a -runtime-rs class, or put the layer into the image itself",
            )
        if not EXTENSION_NAME.fullmatch(extension.name):
            raise InputError(
                f"{extension.name!r} is no name of 1 to 10 letters, digits, - and _ for an extension",
                code="kata-config",
            )
        others = [item for item in runtime.extensions if item.name != extension.name]
        if not others:
            raise InputError(f"{runtime.base}: it has no extension images to keep", code="kata-config")
        parse_verity_params(extension.verity_params)
        for item in [*others, extension]:
            lines += ["", f"[[hypervisor.{runtime.hypervisor}.{_ARRAY}]]"]
            lines += [f"{key} = {_quoted(value)}" for key, value in item._asdict().items()]
    return "\n".join(lines) + "\n"


def _extensions(value: object) -> tuple[Extension, ...]:
    items = value if isinstance(value, list) else []
    texts = [item if isinstance(item, dict) else {} for item in items]
    return tuple(Extension(*(str(item.get(key, "")) for key in Extension._fields)) for item in texts)


def _read(path: str) -> Table:
    from nvattest._documents import load_toml

    return load_toml(read_bounded(path, _MAXIMUM), source=path, maximum=_MAXIMUM)


def _merged(under: Table, over: Table) -> Table:
    result = dict(under)
    for key, value in over.items():
        known = result.get(key)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(known, value) if both else value  # type: ignore[arg-type]
    return result


def at(document: Table, key: str) -> Table:
    """The table below this key, or an empty one."""
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _quoted(text: str) -> str:
    # JSON's strings are TOML's, but for what JSON writes as two halves of one character.
    return json.dumps(text, ensure_ascii=False)
