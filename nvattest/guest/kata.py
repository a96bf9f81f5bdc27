"""The files of a deployment with Kata Containers, on any machine: what silently keeps the hook from gating anything.

Each file is recognised by its content. A runtime configuration is judged as the shim sees it, with its drop-ins; where
several files are given, what they say of the same thing is compared.

The shim, as read from kata-containers 3.0.0 to 4.1.0, merges the files of ``config.d`` into a node's runtime
configuration, in the order of their names: tables by key; every other value, arrays and kernel parameters included, is
replaced. So a drop-in repeats what it must keep.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from nvattest._system import read_bounded
from nvattest.errors import InputError, NvattestError
from nvattest.guest.check import (
    READY_PARAMETER,
    Finding,
    bad,
    image_tree,
    is_set_ready_at_boot,
    manifest_findings,
    ok,
    warn,
)
from nvattest.guest.config import Paths
from nvattest.guest.extension import check_extension, parse_verity_params
from nvattest.guest.record import read_as

_MAXIMUM: Final = 4 * 1024 * 1024
_ANNOTATION: Final = "io.katacontainers.config.hypervisor."
_INITDATA: Final = _ANNOTATION + "cc_init_data"
_RULE: Final = re.compile(r"(?ms)^CreateSandboxRequest\b[^\n{]*\{(.*?)^\}")
_EMPTY_PATH: Final = re.compile(r"count\(\s*input\.guest_hook_path\s*\)\s*==\s*0")
_DEMANDED: Final = re.compile(r"input\.guest_hook_path\s*==\s*(\"[^\"\n]*\"|[A-Za-z_]\w*)")
_KEYS: Final = {"snp": "sev-snp.amd.com/esids", "tdx": "tdx.intel.com/keys"}
_LABELS: Final = {"snp": "amd.feature.node.kubernetes.io/snp", "tdx": "intel.feature.node.kubernetes.io/tdx"}
_READY_LABEL: Final = "nvidia.com/cc.ready.state"
# A file of another kind has nothing that could be wrong with it, and must not count as good.
_FOREIGN: Final = bad("file", "no object of Kubernetes and no values of its charts")
# A disk's serial is extension-NAME, and virtio keeps 20 bytes of it.
EXTENSION_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,10}")

Table = Mapping[str, object]


class _Deployment(NamedTuple):
    """The files that make runtimes' configurations, and what all files say of the same things."""

    bases: list[str]
    drop_ins: list[str]
    hook_paths: dict[str, str]
    demanded_paths: dict[str, str]


def lint_files(files: Sequence[str]) -> list[Finding]:
    """Every finding about these files, good or bad, in their order; then what they contradict each other in."""
    deployment = _Deployment([], [], {}, {})
    for path in files:
        # One that cannot be read is a finding in its turn.
        with suppress(NvattestError):
            document = _toml(path) if path.endswith(".toml") else {}
            if any("image" in table or "initrd" in table for table in _tables(at(document, "hypervisor"))):
                deployment.bases.append(path)
            elif "hypervisor" in document:
                deployment.drop_ins.append(path)
    found: list[Finding] = []
    for path in files:
        try:
            notes = list(_look(path, deployment))
        except NvattestError as error:
            notes = [bad("file", error.message, error.hint or "")]
        found += [item._replace(file=path) for item in notes]
    return [*found, *_compared(deployment)]


def _look(path: str, deployment: _Deployment) -> Iterator[Finding]:
    data = read_bounded(path, _MAXIMUM)
    if path in deployment.bases:
        yield from _runtime(read_runtime(path, deployment.drop_ins), deployment)
    elif path in deployment.drop_ins:
        if not deployment.bases:
            message = "a drop-in alone cannot be judged: its arrays and parameters replace those of the base"
            yield bad("kata-config", message, "give the configuration-….toml of the node too")
    elif path.endswith(".toml"):
        document = _toml(path, data)
        if "schema_version" in document or "process" in document:
            yield from manifest_findings(data, source="the manifest", root=image_tree(path))
        elif "algorithm" in document and "data" in document:
            yield from _initdata(data, path, deployment)
        else:
            yield bad("file", "no runtime configuration, no extension manifest and no initdata")
    elif path.endswith(".rego"):
        yield from _policy(data.decode("utf-8", "replace"), path, deployment)
    else:
        documents = _yaml(data, path)
        for item in documents:
            yield from _kubernetes(item, path, deployment)
        if not documents:
            yield _FOREIGN


# --- the runtime's configuration --------------------------------------------------------------------------------------


def _runtime(runtime: Runtime, deployment: _Deployment) -> Iterator[Finding]:
    yield from _parameters(runtime)
    hook = runtime.effective.guest_hook_path or ""
    extensions = {item.name for item in runtime.effective.images}
    if not hook:
        message = "guest_hook_path is empty: the agent looks for no hook and says nothing"
        yield bad("hook-path", message, "set it in a drop-in: nvattest hook drop-in writes one")
    elif not hook.startswith("/") or hook.rstrip("/").endswith("/prestart"):
        yield bad("hook-path", f"guest_hook_path {hook!r} is not the absolute path of the folder above prestart")
    elif hook.startswith(Paths.EXTENSIONS + "/") and hook.split("/")[3] not in extensions:
        message = f"guest_hook_path {hook!r} lies in an extension that guest_extension_images does not have"
        yield bad("hook-path", message)
    else:
        deployment.hook_paths[runtime.files[0][0]] = hook
        yield ok("hook-path", f"guests look for hooks below {hook}")
    yield from _images(runtime)
    yield from _keys(runtime)


def _parameters(runtime: Runtime) -> Iterator[Finding]:
    ready = is_set_ready_at_boot(runtime.effective.parameters)
    if ready:
        message = f"kernel_params has {ready}: NVRC sets the GPUs ready at boot, with nothing attested"
        hint = "a drop-in with kernel_params without it takes the place of the base's; nvattest hook drop-in writes one"
        yield bad("ready-by-others", message, hint)
    else:
        yield ok("ready-by-others", "the kernel parameters leave the ready state to the hook")
    lost = runtime.lost_parameters
    if lost:
        where = [name for name, said in runtime.files if said.kernel_params is not None][-1]
        message = f"kernel_params of {os.path.basename(where)} takes the place of the base's, and {' '.join(lost)} is"
        yield bad("kernel-params", f"{message} lost", "repeat every parameter that is to stay")
    else:
        yield ok("kernel-params", "every kernel parameter of the base is kept")


def _images(runtime: Runtime) -> Iterator[Finding]:
    names = [item.name for item in runtime.effective.images]
    if not runtime.is_rust:
        if runtime.effective.guest_extension_images is not None:
            yield bad("extensions", "the Go runtime knows no guest_extension_images")
        return
    lost = [item.name for item in runtime.files[0][1].images if item.name not in names]
    if lost:
        message = f"guest_extension_images has {', '.join(names)}, and {', '.join(lost)} of the base is lost"
        yield bad("extensions", message, "nvattest hook drop-in writes the whole array for this node")
    for item in runtime.effective.images:
        if not EXTENSION_NAME.fullmatch(item.name) or names.count(item.name) != 1:
            message = f"extension {item.name!r}: a name is 1 to 10 letters, digits, - and _, and is there once"
            yield bad("extensions", message)
        else:
            yield _image(item)


def _image(item: Extension) -> Finding:
    try:
        params = parse_verity_params(item.verity_params)
    except InputError as error:
        return bad("extensions", f"extension {item.name}: {error.message}; NVRC stops the guest")
    if not os.path.exists(item.path):
        message = f"extension {item.name}: {item.path} is not on this machine"
        return warn("extensions", message, "on a node the class does not load without it")
    try:
        check_extension(item.path, params)
    except InputError as error:
        return bad("extensions", f"extension {item.name}: {error.message}")
    return ok("extensions", f"extension {item.name}: {item.path} has the content of its root hash")


def _keys(runtime: Runtime) -> Iterator[Finding]:
    agent = runtime.agent
    if runtime.is_rust and "dial_timeout" in agent:
        message = "[agent.kata] dial_timeout is a key of the Go runtime: runtime-rs refuses the whole configuration"
        yield bad("runtime-keys", message, "runtime-rs has dial_timeout_ms and reconnect_timeout_ms")
    where, other = ("agent.kata", "runtime") if runtime.is_rust else ("runtime", "agent.kata")
    misplaced = agent if other == "agent.kata" else runtime.runtime
    if "create_container_timeout" in misplaced:
        message = f"create_container_timeout in [{other}] is not read: this runtime has it in [{where}]"
        yield warn("runtime-keys", message)
    if agent.get("debug_console_enabled") is True:
        yield bad("debug", "debug_console_enabled gives the host a shell in the guest")


# --- policy and initdata ----------------------------------------------------------------------------------------------


def _policy(text: str, path: str, deployment: _Deployment) -> Iterator[Finding]:
    plain = re.sub(r"(?m)#.*$", "", text)
    rules = _RULE.findall(plain)
    if not rules:
        yield bad("policy", "it has no rule CreateSandboxRequest with a body")
    elif len(rules) > 1:
        message = f"it has {len(rules)} rules CreateSandboxRequest, and each hook path that one of them allows is"
        yield bad("policy", f"{message} allowed", "put our rule in the place of the shipped one")
    elif _EMPTY_PATH.search(rules[0]):
        yield bad("policy", "it demands that guest_hook_path is empty: no guest with the hook is created")
    elif not (value := _demanded(rules[0], plain)):
        yield bad("policy", "CreateSandboxRequest does not compare guest_hook_path: the host may leave the hook out")
    else:
        deployment.demanded_paths[path] = value.strip('"')
        yield ok("policy", f"it demands the hook path {value}")


def _demanded(rule: str, text: str) -> str:
    """The path in quotes that a rule compares with, itself or by the name of a constant; or ""."""
    found = _DEMANDED.search(rule)
    if found is not None and not found[1].startswith('"'):
        found = re.search(rf'(?m)^{re.escape(found[1])}\s*:?=\s*("[^"\n]*")', text)
    return found[1] if found is not None else ""


def _initdata(data: bytes, path: str, deployment: _Deployment) -> Iterator[Finding]:
    document = _toml(path, data)
    algorithm = str(document.get("algorithm", "")).replace("-", "").lower()
    if document.get("version") != "0.1.0" or algorithm not in ("sha256", "sha384", "sha512"):
        yield bad("initdata", 'initdata has version "0.1.0" and algorithm sha256, sha384 or sha512')
        return
    digest = hashlib.new(algorithm, data).hexdigest()
    yield ok("initdata", f"its {algorithm}, which the quote has, is {digest}")
    policy = at(document, "data").get("policy.rego")
    if isinstance(policy, str):
        yield from _policy(policy, path, deployment)
    else:
        message = "initdata without policy.rego: the image's default policy holds, which allows the host everything"
        yield bad("policy", message)


def _from_annotation(text: str) -> bytes:
    try:
        packed = base64.b64decode(text, validate=True)
        unpacker = zlib.decompressobj(wbits=31)
        data = unpacker.decompress(packed, _MAXIMUM)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise InputError(f"{_INITDATA} is not base64 of gzip: {error}", code="initdata") from None
    if not unpacker.eof:
        raise InputError(f"{_INITDATA} is cut short, or larger than {_MAXIMUM} bytes", code="initdata")
    return data


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def _kubernetes(document: Table, path: str, deployment: _Deployment) -> Iterator[Finding]:
    kind = document.get("kind")
    if kind == "RuntimeClass":
        yield from _runtime_class(document)
    elif kind == "Pod":
        yield from _pod(document, path, deployment)
    elif "sandboxWorkloads" in document or "ccManager" in document:
        yield from _operator_values(document)
    elif "shims" in document or "customRuntimes" in document:
        yield from _deploy_values(document)
    elif isinstance(kind, str):
        yield warn("file", f"nothing is known of {kind}")
    else:
        yield _FOREIGN


def _operator_values(values: Table) -> Iterator[Finding]:
    found: list[Finding] = []
    sandbox = at(values, "sandboxWorkloads")
    for key, wanted in (("enabled", True), ("mode", "kata")):
        if sandbox.get(key) != wanted:
            message = f"sandboxWorkloads.{key} is {_json(sandbox.get(key))}, not {_json(wanted)}"
            found.append(bad("operator", message, "without it no node gets a CC label, and no GPU a resource for Kata"))
    if at(values, "kataManager").get("enabled") is True:
        message = "kataManager: the operator removes the RuntimeClasses that carry its label"
        found.append(bad("operator", message, "leave it out; kata-deploy makes the classes"))
    mode = at(values, "ccManager").get("defaultMode", "on")
    if mode not in ("on", "off", "devtools"):
        message = f"ccManager.defaultMode is {_json(mode)}, not on, off or devtools"
        hint = "in YAML on without quotes is true; ppcie is for single nodes: label nvidia.com/cc.mode"
        found.append(bad("operator", message, hint))
    elif mode != "on":
        found.append(warn("operator", f"ccManager.defaultMode is {mode}: only nodes that are labelled attest"))
    yield from found or [ok("operator", "nodes get their CC labels, and GPUs a resource for Kata")]


def _deploy_values(values: Table) -> Iterator[Finding]:
    shims = at(values, "shims")
    enabled = {name for name, shim in shims.items() if isinstance(shim, Mapping) and shim.get("enabled") is True}
    default = at(values, "defaultShim").get("amd64")
    if default not in enabled:
        message = f"defaultShim.amd64 is {_json(default)}, which is none of the enabled: {', '.join(sorted(enabled))}"
        yield bad("kata-deploy", message, "the installation fails on it")
    rules = at(values, "nodeFeatureRules").get("create", "auto")
    if rules is not True:
        message = f"nodeFeatureRules.create is {_json(rules)}, not true: nodes may get no label for their TEE"
        hint = "pods then stay pending; auto makes the labels only where NFD was there before"
        yield Finding("kata-deploy", "warning" if rules == "auto" else "error", message, hint)
    custom = at(values, "customRuntimes")
    runtimes = at(custom, "runtimes")
    if runtimes and custom.get("enabled") is not True:
        yield bad("kata-deploy", "customRuntimes.enabled is not true")
    for name, item in runtimes.items():
        if isinstance(item, Mapping):
            yield from _custom_runtime(name, item, enabled)
    for name, shim in shims.items():
        text = shim.get("dropIn") if isinstance(shim, Mapping) else None
        if isinstance(text, str) and text:
            yield from _drop_in_text(name, text)


def _tee_of(name: str) -> str:
    """The kind of confidential guest in the name of a runtime, or an empty text."""
    return next((tee for tee in ("snp", "tdx") if tee in name), "")


def _custom_runtime(name: str, runtime: Table, enabled: set[str]) -> Iterator[Finding]:
    base = str(runtime.get("baseConfig"))
    tee = _tee_of(base)
    if base not in enabled:
        yield bad("kata-deploy", f"{name}: its base {base} is not enabled among shims, so its files are not installed")
    for document in _yaml(str(runtime.get("runtimeClass", "")).encode(), name):
        if document.get("handler") != name and document.get("handler") != f"kata-{name}":
            yield warn("kata-deploy", f"{name}: handler {_json(document.get('handler'))} is not the runtime's name")
        for item in _runtime_class(document, tee=tee):
            yield item._replace(message=f"{name}: {item.message}")
    if isinstance(runtime.get("dropIn"), str):
        yield from _drop_in_text(name, str(runtime["dropIn"]))
    if at(runtime, "containerd").get("snapshotter") != "nydus":
        yield warn("kata-deploy", f"{name}: containerd.snapshotter is not nydus: images are not pulled in the guest")


def _drop_in_text(name: str, text: str) -> Iterator[Finding]:
    document = _toml(f"dropIn of {name}", text.encode())
    for table in _tables(at(document, "hypervisor")):
        if READY_PARAMETER in str(table.get("kernel_params", "")):
            yield bad("ready-by-others", f"{name}: its kernel_params has {READY_PARAMETER}")
        if not table.get("guest_hook_path"):
            yield warn("hook-path", f"{name}: its drop-in names no guest_hook_path")


def _runtime_class(document: Table, *, tee: str = "") -> Iterator[Finding]:
    handler = str(document.get("handler", ""))
    tee = tee or _tee_of(handler)
    selector = at(document, "scheduling", "nodeSelector")
    overhead = at(document, "overhead", "podFixed")
    labels = at(document, "metadata", "labels")
    tee_label, tee_key = _LABELS.get(tee, ""), _KEYS.get(tee, "")
    checks = (
        (
            labels.get("nvidia.com/kata-runtime-class") is not None,
            "the GPU Operator removes classes labelled nvidia.com/kata-runtime-class",
        ),
        (
            selector.get(_READY_LABEL) != "true",
            f'nodeSelector has not {_READY_LABEL}: "true", which on and ppcie nodes have and no other',
        ),
        (tee and selector.get(tee_label) != "true", f'nodeSelector has not {tee_label}: "true"'),
        (
            tee and str(overhead.get(tee_key)) != "1",
            f'overhead.podFixed has not {tee_key}: "1": more pods are scheduled than the TEE has keys for',
        ),
        ("debug" in handler, "a debug class does not get the drop-in: the GPUs are ready unattested there"),
    )
    found = [bad("runtime-class", message) for wrong, message in checks if wrong]
    yield from found or [ok("runtime-class", f"{handler} selects nodes in CC mode")]


def _pod(document: Table, path: str, deployment: _Deployment) -> Iterator[Finding]:
    spec = at(document, "spec")
    if not isinstance(spec.get("runtimeClassName"), str):
        yield bad("pod", "it names no runtimeClassName, and so runs without a guest")
    gpus = 0
    containers = spec.get("containers")
    if not isinstance(containers, list):
        containers = []
    for container in containers:
        limits = at(container if isinstance(container, Mapping) else {}, "resources", "limits")
        count, switches = (_number(limits.get(f"nvidia.com/{name}")) for name in ("pgpu", "nvswitch"))
        gpus += count
        if count and "memory" not in limits:
            yield bad("pod", "it has no memory limit: the guest gets its default memory and nothing for this container")
        if switches and (count, switches) != (8, 4):
            yield bad("pod", f"{count} GPUs and {switches} switches: NVRC powers the guest off for all but 8 and 4")
        elif switches:
            message = "8 GPUs and 4 switches are for Hopper in protected PCIe mode: nodes labelled"
            yield ok("pod", f"{message} nvidia.com/cc.mode=ppcie")
    annotations = at(document, "metadata", "annotations")
    for key, value in annotations.items():
        if key == _INITDATA:
            yield from _initdata(_from_annotation(str(value)), path, deployment)
        elif key.startswith("io.katacontainers.config."):
            message = f"annotation {key}: runtime-rs ignores it, and the Go runtime may refuse the pod"
            yield bad("pod", message, f"the classes for confidential GPUs take {_INITDATA} alone")
    if gpus:
        yield ok("pod", f"it asks for {gpus} GPU{'' if gpus == 1 else 's'} of class {spec.get('runtimeClassName')}")


def _compared(deployment: _Deployment) -> Iterator[Finding]:
    for file, demanded in deployment.demanded_paths.items():
        for base, hook in deployment.hook_paths.items():
            if hook != demanded:
                message = f"the policy demands {demanded}, and {os.path.basename(base)} has {hook}: no guest is created"
                yield bad("hook-path", message, file=file)


def _toml(source: str, data: bytes | None = None) -> Table:
    """A document: that of the file ``source``, or ``data`` by this name."""
    from nvattest._documents import load_toml

    data = read_bounded(source, _MAXIMUM) if data is None else data
    return load_toml(data, source=source, maximum=_MAXIMUM)


def _yaml(data: bytes, source: str) -> list[Table]:
    if not data.strip():
        return []
    try:
        import yaml
    except ImportError:
        # JSON is YAML, and kubectl writes it.
        from nvattest._documents import load_json

        try:
            documents = [load_json(data, source=source, maximum=_MAXIMUM)]
        except NvattestError as error:
            hint = "for YAML: pip install PyYAML (the extra kata); JSON is read without it"
            raise InputError(error.message, code="file", hint=hint) from None
    else:
        try:
            documents = list(yaml.safe_load_all(data))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(f"{source}: not YAML: {error}"[:300], code="file") from None
    return [document for document in documents if isinstance(document, Mapping)]


def _tables(table: Table) -> Iterator[Table]:
    yield from (value for value in table.values() if isinstance(value, Mapping))


def _number(value: object) -> int:
    text = str(value if value is not None else 0)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else 0


def _json(value: object) -> str:
    return json.dumps(value, default=str)[:80]


# --- a runtime's configuration as the shim reads it, and a drop-in for it ---------------------------------------------


class Extension(NamedTuple):
    """One member of ``guest_extension_images``."""

    name: str = ""
    path: str = ""
    verity_params: str = ""


class Hypervisor(NamedTuple):
    """What the hypervisor's table has for the hook; None where a file says nothing of it."""

    kernel_params: str | None = None
    guest_hook_path: str | None = None
    guest_extension_images: tuple[Extension, ...] | None = None

    @property
    def parameters(self) -> list[str]:
        """The kernel parameters."""
        return (self.kernel_params or "").split()

    @property
    def images(self) -> tuple[Extension, ...]:
        """The extension images, in their order."""
        return self.guest_extension_images or ()


class Runtime(NamedTuple):
    """A configuration: what each of its ``files`` says, from the base on, and what the shim makes of that.

    ``name`` is that of the one table below ``[hypervisor]``. ``agent`` and ``runtime`` are the merged tables of these
    names. runtime-rs and the Go runtime have other keys, and the Go runtime boots an image that has all in one.
    """

    name: str
    files: list[tuple[str, Hypervisor]]
    effective: Hypervisor
    agent: Table
    runtime: Table
    is_rust: bool

    @property
    def lost_parameters(self) -> list[str]:
        """Parameters of the base that a drop-in took away, but for the one that sets GPUs ready unattested."""
        first: Hypervisor = next((said for _, said in self.files if said.kernel_params is not None), Hypervisor())
        return [word for word in _kept(first.parameters) if word not in self.effective.parameters]


def read_runtime(base: str, drop_ins: Iterable[str] = ()) -> Runtime:
    """Read a configuration with the ``config.d`` beside it, and drop-ins from elsewhere as if they lay there.

    Raises InputError: a file that cannot be read or is no TOML, a symbolic link in ``config.d``, which runtime-rs
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
    layers = [(path, _toml(path)) for path in [base, *(found[name] for name in sorted(found))]]
    tables = at(layers[0][1], "hypervisor")
    if len(tables) != 1:
        raise InputError(f"{base}: expected one table below [hypervisor], found {len(tables)}", code="kata-config")
    files, effective = [], Hypervisor()
    for path, document in layers:
        try:
            said: Hypervisor = read_as(Hypervisor, at(document, "hypervisor", *tables))
        except TypeError as error:
            # The shim starts no guest with another type. Read as nothing, it would be missing from a drop-in.
            raise InputError(f"{path}: {error}", code="kata-config") from None
        files.append((path, said))
        effective = effective._replace(**{key: value for key, value in said._asdict().items() if value is not None})
    agent, runtime = (
        {key: value for _, document in layers for key, value in at(document, *keys).items()}
        for keys in (("agent", "kata"), ("runtime",))
    )
    is_rust = "hypervisor_name" in at(layers[0][1], "runtime") or bool(files[0][1].images)
    return Runtime(next(iter(tables)), files, effective, agent, runtime, is_rust)


def drop_in(runtime: Runtime, *, hook_path: str, extension: Extension | None = None) -> str:
    """The text of a drop-in for this node: hook path, kernel parameters without the one that sets GPUs ready, and all
    extension images with ours as the last.

    Raises InputError: the runtime boots an image that cannot have extensions, or its own are missing, or a name or the
    verity parameters are none (``kata-config``).
    """
    base, kept = runtime.files[0][0], _kept(runtime.effective.parameters)
    lines = [
        f"# Written by nvattest hook drop-in from {os.path.basename(base)}. Write it again with each release",
        "# of Kata: the array and the parameters of this file take the place of the release's own.",
        f"[hypervisor.{runtime.name}]",
        f"guest_hook_path = {_quoted(hook_path)}",
        f"kernel_params = {_quoted(' '.join(kept))}",
    ]
    if extension is not None:
        if not runtime.is_rust:
            raise InputError(
                f"{base}: the Go runtime boots NVIDIA's image that has all in one, without veritysetup: NVRC "
                "stops a guest with an extension there",
                code="kata-config",
                hint="use a -runtime-rs class, or put the layer into the image itself",
            )
        if not EXTENSION_NAME.fullmatch(extension.name):
            raise InputError(
                f"{extension.name!r} is no name of 1 to 10 letters, digits, - and _ for an extension",
                code="kata-config",
            )
        others = [item for item in runtime.effective.images if item.name != extension.name]
        if not others:
            raise InputError(f"{base}: it has no extension images to keep", code="kata-config")
        parse_verity_params(extension.verity_params)
        for item in [*others, extension]:
            lines += ["", f"[[hypervisor.{runtime.name}.guest_extension_images]]"]
            lines += [f"{key} = {_quoted(value)}" for key, value in item._asdict().items()]
    return "\n".join(lines) + "\n"


def _kept(parameters: list[str]) -> list[str]:
    return [word for word in parameters if word.partition("=")[0] != READY_PARAMETER]


def at(document: Table, *keys: str) -> Table:
    """The table below these keys, or an empty one."""
    for key in keys:
        value = document.get(key)
        document = value if isinstance(value, Mapping) else {}
    return document


def _quoted(text: str) -> str:
    # JSON's strings are TOML's, but for what JSON writes as two halves of one character.
    return json.dumps(text, ensure_ascii=False)
