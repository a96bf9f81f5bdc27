"""Collateral from folders: RIMs (``*.xml``, ``*.swidtag``, or the RIM service's ``*.json``) and answers (``*.der``).

NVIDIA's ``--rim-dir`` has ``<RIM id>.xml``. Under any other name a document is identified by its own content.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from nvattest._system import read_bounded
from nvattest.appraisal.inputs import Collateral, OcspAnswer, RimAnswer, Source, Unavailable
from nvattest.collateral.bundle import MAXIMUM_ANSWER, MAXIMUM_ANSWERS, MAXIMUM_RIM, MAXIMUM_RIMS, add_rim
from nvattest.errors import InputError, NvattestError, ParseError, ResultCode
from nvattest.rim.ids import fits_rim_id, is_rim_id, rim_id_of

if TYPE_CHECKING:
    from nvattest.rim.document import RimDocument

RIM_SUFFIXES: Final = (".xml", ".swidtag", ".json")
# The ids that reports lead to. A file with such a name that is not wanted is another document, and stays unopened.
_ID: Final = re.compile(
    r"NV_GPU_(?:CC_)?DRIVER_[A-Z0-9]+_[0-9]+(?:\.[0-9]+)+|NV_(?:GPU_V|SWITCH_)BIOS(?:_[A-Za-z0-9]+){3}_[0-9A-F]{10}"
)


class Unused(NamedTuple):
    """An input that gave nothing, and why."""

    path: str
    reason: str


def refuse_unused(unused: Unused) -> None:
    """Stop at an unused input (InputError): the default of ``unused``."""
    hint = "move it elsewhere, or leave it out with --keep-going"
    raise InputError(f"{unused.path}: {unused.reason}", code="unused-input", hint=hint)


def rims_by_id(folder: str, ids: Iterable[str], *, parse: Callable[[bytes], RimDocument] | None = None) -> Collateral:
    """The RIMs of these ids from a folder; what is not there is noted as unavailable (code 104).

    ``parse`` reads documents that go under another name; it may be that of a verifier, which keeps them.

    Raises:
        InputError: no such folder, too many files, or two different documents for one of the ids.
    """
    wanted = [rim_id for rim_id in dict.fromkeys(ids) if is_rim_id(rim_id)]
    rims: dict[str, RimAnswer] = {}
    unavailable = {
        f"rim:{rim_id}": Unavailable(
            ResultCode.RIM_NOT_FOUND,
            f"{folder} has no {rim_id}.xml, and no other RIM in it is that one",
            "fetch the RIM (nvattest bundle fetch), or name another folder",
        )
        for rim_id in wanted
    }
    for name, path in _files(folder, RIM_SUFFIXES, MAXIMUM_RIMS):
        # The service's JSON has its id inside, under any file name.
        if name not in wanted and _ID.fullmatch(name) is not None and not path.lower().endswith(".json"):
            continue
        try:
            own, content = _read_rim(path)
            found = [own or name] if own or name in wanted else _fitting(content, path, wanted, parse)
        except NvattestError as error:
            # Only the name of a wanted RIM makes it an error; other files of the folder are the caller's.
            if name in wanted:
                unavailable[f"rim:{name}"] = Unavailable(ResultCode.RIM_INTERNAL_ERROR, error.message, error.hint)
            continue
        for rim_id in found:
            if rim_id in wanted:
                add_rim(rims, RimAnswer(id=rim_id, content=content, source=Source.FILE, origin=path))
    return Collateral(
        rims=rims, unavailable={key: why for key, why in unavailable.items() if key.partition(":")[2] not in rims}
    )


def _fitting(content: bytes, path: str, wanted: list[str], parse: Callable[[bytes], RimDocument] | None) -> list[str]:
    """Which of the wanted RIMs this document is, under whatever name it goes."""
    from nvattest.rim.document import parse_rim

    document = (parse or parse_rim)(content)
    named = rim_id_of(document, os.path.basename(path))
    return [rim_id for rim_id in wanted if (rim_id == named if named else fits_rim_id(document, rim_id))]


def read_rim_folder(folder: str, *, unused: Callable[[Unused], None] = refuse_unused) -> Collateral:
    """All RIMs of a folder, each under its own id. ``unused`` is called with each file that gives none.

    Raises:
        InputError: no such folder, too many files, two different documents for one id; and what ``unused`` raises.
    """
    rims: dict[str, RimAnswer] = {}
    for _, path in _files(folder, RIM_SUFFIXES, MAXIMUM_RIMS):
        try:
            rim_id, content = _read_rim(path)
            rim_id = rim_id or _own_id(content, path)
            add_rim(rims, RimAnswer(id=rim_id, content=content, source=Source.FILE, origin=path))
        except NvattestError as error:
            unused(Unused(path, error.message.removeprefix(f"{path}: ")))
    return Collateral(rims=rims)


def _own_id(content: bytes, path: str) -> str:
    from nvattest.rim.document import parse_rim
    from nvattest.rim.xml import explained

    try:
        document = parse_rim(content)
    except ParseError as error:
        raise InputError(explained(error, content), code="unused-input") from error
    rim_id = rim_id_of(document, os.path.basename(path))
    if rim_id is None:
        raise InputError(
            f"a RIM of {document.product} {document.edition} {document.version}, and its name does not say of which "
            "board: PROJECT_SKU_CHIPSKU_VERSION, as in its id", code="unused-input",
        )  # fmt: skip
    return rim_id


def _read_rim(path: str) -> tuple[str, bytes]:
    """The id, which only the RIM service's JSON has beside the document, and the document."""
    if not path.lower().endswith(".json"):
        return "", read_bounded(path, MAXIMUM_RIM)
    from nvattest.collateral.gather import MAXIMUM_RIM_ANSWER, read_rim_answer

    rim_id, content = read_rim_answer(read_bounded(path, MAXIMUM_RIM_ANSWER), path, file=True)
    if not is_rim_id(rim_id):
        raise InputError(f"not a RIM id: {rim_id[:80]!r}", code="rim-id")
    return rim_id, content


def read_rim_file(path: str) -> bytes:
    """The document of one RIM file of any of these kinds; InputError where it cannot be read."""
    return _read_rim(path)[1]


def read_ocsp_folder(folder: str, *, unused: Callable[[Unused], None] = refuse_unused) -> Collateral:
    """All ``*.der`` files of a folder as OCSP responses; errors and ``unused`` as ``read_rim_folder``."""
    answers = []
    for _, path in _files(folder, (".der",), MAXIMUM_ANSWERS):
        try:
            answers.append(OcspAnswer(content=read_bounded(path, MAXIMUM_ANSWER), source=Source.FILE, origin=path))
        except InputError as error:
            unused(Unused(path, error.message.removeprefix(f"{path}: ")))
    return Collateral(ocsp=tuple(answers))


def other_files(folder: str, suffixes: tuple[str, ...]) -> list[Unused]:
    """The files of a folder that have none of the suffixes, but for hidden ones; InputError without such a folder."""
    why = f"not one of {', '.join('*' + suffix for suffix in suffixes)}"
    return [
        Unused(path, why)
        for name, path in _listed(folder)
        if not name.startswith(".") and not name.lower().endswith(suffixes)
    ]


def _listed(folder: str) -> list[tuple[str, str]]:
    try:
        return [(name, os.path.join(folder, name)) for name in sorted(os.listdir(folder))]
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}", code="file") from None


def _files(folder: str, suffixes: tuple[str, ...], maximum: int) -> list[tuple[str, str]]:
    """The files of these kinds: their names without the suffix, and their paths."""
    found = [(name.rpartition(".")[0], path) for name, path in _listed(folder) if name.lower().endswith(suffixes)]
    if len(found) > maximum:
        raise InputError(f"{folder} has {len(found)} files, at most {maximum} are read", code="file")
    return found
