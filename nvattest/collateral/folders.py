"""Collateral from folders: ``<dir>/<RIM id>.xml``, as NVIDIA's ``--rim-dir`` has them, and ``<dir>/*.der``."""

from __future__ import annotations

import os
from collections.abc import Iterable

from nvattest.appraisal.inputs import Collateral, OcspAnswer, RimAnswer, Source, Unavailable
from nvattest.collateral.bundle import MAXIMUM_ANSWER, MAXIMUM_ANSWERS, MAXIMUM_RIM, MAXIMUM_RIMS
from nvattest.errors import InputError, ResultCode
from nvattest.rim.ids import is_rim_id


def read_bounded(path: str, maximum: int) -> bytes:
    """Read a regular file of at most ``maximum`` bytes.

    Raises:
        InputError: it is not there, not a regular file, not readable, or larger.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not hang; it is refused below like everything that is not a regular file.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not _is_regular(file.fileno()):
                raise InputError(f"{path} is not a regular file", code="file")
            data = file.read(maximum + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="file") from None
    except ValueError:
        raise InputError(f"not a file name: {path!r}", code="file") from None
    if len(data) > maximum:
        raise InputError(f"{path} is larger than {maximum} bytes", code="file")
    return data


def _is_regular(descriptor: int) -> bool:
    import stat

    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def rims_by_id(folder: str, ids: Iterable[str]) -> Collateral:
    """The RIMs of these ids from a folder; what is not there is noted as unavailable (code 104)."""
    rims: dict[str, RimAnswer] = {}
    unavailable: dict[str, Unavailable] = {}
    for rim_id in ids:
        path = os.path.join(folder, f"{rim_id}.xml")
        if is_rim_id(rim_id) and os.path.exists(path):
            try:
                content = read_bounded(path, MAXIMUM_RIM)
            except InputError as error:
                unavailable[f"rim:{rim_id}"] = Unavailable(code=ResultCode.RIM_INTERNAL_ERROR, message=error.message)
            else:
                rims[rim_id] = RimAnswer(id=rim_id, content=content, source=Source.BUNDLE, origin=path)
        else:
            unavailable[f"rim:{rim_id}"] = Unavailable(
                code=ResultCode.RIM_NOT_FOUND,
                message=f"{folder} has no {rim_id}.xml",
                hint="fetch the RIM (nvattest bundle fetch), or name another folder",
            )
    return Collateral(rims=rims, unavailable=unavailable)


def read_rim_folder(folder: str) -> Collateral:
    """All ``*.xml`` files of a folder as RIMs, named by their file name.

    Raises:
        InputError: no such folder, too many files, or a file that cannot be read.
    """
    rims = {}
    for name, path in _files(folder, ".xml", MAXIMUM_RIMS):
        if not is_rim_id(name):
            raise InputError(f"{path}: the file name is not a RIM id", code="file")
        rims[name] = RimAnswer(id=name, content=read_bounded(path, MAXIMUM_RIM), source=Source.BUNDLE, origin=path)
    return Collateral(rims=rims)


def read_ocsp_folder(folder: str) -> Collateral:
    """All ``*.der`` files of a folder as OCSP responses.

    Raises:
        InputError: no such folder, too many files, or a file that cannot be read.
    """
    return Collateral(
        ocsp=tuple(
            OcspAnswer(content=read_bounded(path, MAXIMUM_ANSWER), source=Source.BUNDLE, origin=path)
            for _, path in _files(folder, ".der", MAXIMUM_ANSWERS)
        )
    )


def _files(folder: str, suffix: str, maximum: int) -> list[tuple[str, str]]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(suffix))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}", code="file") from None
    if len(names) > maximum:
        raise InputError(f"{folder} has {len(names)} files, at most {maximum} are read", code="file")
    return [(name.removesuffix(suffix), os.path.join(folder, name)) for name in names]
