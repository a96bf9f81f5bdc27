"""The ways out of a command: lines for people, its terminal, a failure in the chosen format, files written whole."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

from nvattest._text import block, clean
from nvattest.errors import InputError, NvattestError, ResultCode

if TYPE_CHECKING:
    import threading

    from nvattest.evidence import Evidence
    from nvattest.report.terminal import Terminal
    from nvattest.token.verified import VerifiedToken

_MAXIMUM_LINKS: Final = 40


def say(*lines: str, error: bool = False, colour: bool = False) -> None:
    """Print lines for people, on stderr with ``error``. Text is cleaned here once more, as it leaves the program.

    Each line may be a text of several lines. ``colour`` lets the colours of ``Terminal`` through.
    """
    stream = sys.stderr if error else sys.stdout
    # ``print`` takes None for stdout; a text for a closed stderr must not go there.
    if stream is not None:
        print("\n".join([block(line, colour=colour) for line in lines]), file=stream)


def say_how_read(evidence: Iterable[Evidence]) -> None:
    """Say on stderr where in a file the evidence stood, for commands whose output has no place for it."""
    for origin in dict.fromkeys(item.origin for item in evidence if " " in item.origin):
        say(f"evidence from: {origin}", error=True)


def voucher(verified: VerifiedToken) -> dict[str, object]:
    """Who vouches for a token, for programs: its issuer, the source of its key, and whether it is NVIDIA's service."""
    from nvattest.model import format_time

    at = verified.at
    return {
        "issuer": verified.issuer,
        "nvidia": verified.of_nvidia,
        "key_url": verified.key_url,
        "key_source": verified.key_source,
        "issued": format_time(verified.issued),
        "at": {"device": format_time(at.device), "rim": format_time(at.rim)} if at is not None else None,
        "anchors": verified.anchors,
        "simulated": verified.simulated,
    }


# --- files ------------------------------------------------------------------------------------------------------------


def write_file(path: str, content: str | bytes, *, mode: int = 0o666) -> None:
    """Write an output that the caller named. Text becomes UTF-8.

    A regular file, also one that a link leads to, is written whole or not at all. It has ``mode`` less the umask; where
    others may read it, an older file of the caller's keeps its permissions. A device, a pipe or a descriptor of this
    process (``/dev/stdout``) is written to and stays what it is.

    Raises:
        InputError: it cannot be written.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        place, number = _place(path)
        if number is None:
            try:
                old = os.lstat(place)
            except FileNotFoundError:
                old = None
            if old is None or stat.S_ISREG(old.st_mode):
                _replace(place, data, mode, old)
                return
            from nvattest._system import flags

            descriptor = os.open(place, os.O_WRONLY | flags("O_NOFOLLOW", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
        else:
            descriptor = _duplicate(number)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="file") from None


def open_stream(path: str) -> BinaryIO:
    """Open an output that is written piece by piece. What ``path`` names is as in ``write_file``.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        place, number = _place(path)
        return open(place, "wb") if number is None else os.fdopen(_duplicate(number), "wb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="file") from None


def _place(path: str) -> tuple[str, int | None]:
    """The path behind links, and the number where it is a descriptor of this process.

    ``/dev/stdout`` and ``/dev/fd/N`` are links to such. Opened by name, the file behind one is written from its start.
    """
    descriptors = os.path.realpath("/proc/self/fd")
    place = path
    for _ in range(_MAXIMUM_LINKS):
        folder, name = os.path.realpath(os.path.dirname(place) or "."), os.path.basename(place)
        place = os.path.join(folder, name)
        if folder == descriptors and name.isdecimal():
            return place, int(name)
        try:
            target = os.readlink(place)
        except OSError:
            return place, None
        _require_safe_link(place, folder)
        place = os.path.join(folder, target)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _require_safe_link(link: str, folder: str) -> None:
    """Follow no link that another user has put into a folder for all, such as /tmp.

    Linux refuses it too (``fs.protected_symlinks``), but only where it follows the link itself.
    """
    facts, around = os.lstat(link), os.stat(folder)
    for_all = stat.S_ISVTX | stat.S_IWOTH
    if around.st_mode & for_all == for_all and facts.st_uid not in (os.geteuid(), around.st_uid):
        raise PermissionError(errno.EACCES, f"a link of user {facts.st_uid} in a folder that all may write into", link)


def _duplicate(number: int) -> int:
    # Buffered lines go out before what the caller writes.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    return os.dup(number)


def _replace(path: str, data: bytes, mode: int, old: os.stat_result | None) -> None:
    from nvattest._system import HAS_FOLDERS, flags, replace_file

    def settle(descriptor: int) -> None:
        # The permissions of another user's file are not kept: its maker must not choose who may write into this one.
        if old is None or not mode & 0o077 or old.st_uid != os.geteuid():
            return
        kept = stat.S_IMODE(old.st_mode) & 0o777
        if old.st_gid != os.fstat(descriptor).st_gid:
            try:
                os.fchown(descriptor, -1, old.st_gid)
            except OSError:
                kept &= ~0o070
        os.fchmod(descriptor, kept)

    folder, name = os.path.split(path)
    new = f".nvattest-{os.urandom(8).hex()}"
    if not HAS_FOLDERS:
        replace_file(folder, name, data, new=new, mode=mode)
        return
    descriptor = os.open(folder, getattr(os, "O_PATH", os.O_RDONLY) | flags("O_DIRECTORY", "O_CLOEXEC"))
    try:
        replace_file(descriptor, name, data, new=new, mode=mode, settle=settle)
    finally:
        os.close(descriptor)


# --- one document, or one failure -------------------------------------------------------------------------------------


def print_json(
    form: str, document: Mapping[str, object], *, code: ResultCode | None = None, error: NvattestError | None = None
) -> None:
    """Print a result for programs, of the form that ``schemas/FORM-1.json`` describes.

    Before its own members come those of the result code and of the error, where there are such.
    """
    from nvattest._documents import dump_json

    head: dict[str, object] = {"format": f"nvattest-{form}", "version": 1}
    code = error.result_code if error is not None else code
    if code is not None:
        head |= {"result_code": int(code), "result_message": code.message}
    if error is not None:
        head["error"] = {"code": error.code, "message": str(error), "hint": error.hint}
    print(dump_json({**head, **document}))


def report_error(
    error: NvattestError, verdict: str, form: str, members: Mapping[str, object], *, as_json: bool
) -> None:
    """Print a failure before anything could be judged, in the chosen format, so that stdout is never empty.

    ``verdict`` is the word of the text; ``form`` and ``members`` are those of the command's JSON.
    """
    code = error.result_code
    if as_json:
        print_json(form, members, error=error)
    else:
        said = [f"Result: {verdict}, code {int(code)} ({code.message})", f"  {error.code}: {error}"]
        say(*said, *([f"  next: {error.hint}"] if error.hint else []))
    say(f"Error {int(code):03d}: {code.message}", error=True)


_MINIMUM: Final = 60
_MAXIMUM: Final = 120
_DELAY: Final = 1.0
_INTERVAL: Final = 0.25
# Without a terminal a line cannot be overwritten.
_LINE_INTERVAL: Final = 5.0
_CLEAR: Final = "\r\x1b[K"


# --- the terminal -----------------------------------------------------------------------------------------------------


def terminal_for(stream: TextIO | None = None, *, color: str = "auto", width: int | None = None) -> Terminal:
    """How to write to ``stream`` (stdout by default): 80 columns, plain and without colour where it is no terminal."""
    from nvattest.report.terminal import Terminal

    stream = sys.stdout if stream is None else stream
    if width is None and is_terminal(stream):
        import shutil

        width = min(shutil.get_terminal_size((80, 24)).columns, _MAXIMUM)
    width = 80 if width is None else width
    return Terminal(width=max(_MINIMUM, width), color=wants_color(stream, color), unicode=shows_unicode(stream))


def wants_color(stream: TextIO, choice: str = "auto") -> bool:
    """Whether to use colour: as asked, else on a terminal that has it. NO_COLOR (no-color.org) is respected."""
    if choice != "auto":
        return choice == "always"
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal; a missing or closed one is none."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def shows_unicode(stream: TextIO) -> bool:
    """Whether the locale of ``stream`` has the signs that we use."""
    encoding = (getattr(stream, "encoding", None) or "ascii").lower()
    if encoding.replace("-", "").replace("_", "") != "utf8":
        return False
    # Python writes UTF-8 even in the C locale (PEP 538, 540); the terminal behind it need not show it.
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    return not is_terminal(stream) or locale.split(".")[0] not in ("", "C", "POSIX") or "utf" in locale.lower()


class Progress:
    """The line on stderr that says what is waited for, after a second of it; it is erased when the wait ends.

    ``with Progress("asking the service") as progress: progress.update("3 of 7")``. Several waits share the line.
    Nothing is written where stderr is no terminal, unless ``lines`` asks for a line of its own now and then.
    """

    def __init__(self, what: str = "", *, quiet: bool = False, lines: bool = False, delay: float = _DELAY) -> None:
        import threading

        self._what = what
        self._stream = sys.stderr
        self._terminal = is_terminal(self._stream)
        self._shown = not quiet and (self._terminal or lines)
        self._delay = delay
        self._waits: dict[object, tuple[float, str]] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._written = False

    def begin(self, wait: object, words: str) -> None:
        """A wait begins. No line is written within its first second."""
        self._waits[wait] = (time.monotonic(), words)
        if self._shown and self._thread is None:
            import threading

            self._thread = threading.Thread(target=self._run, name="nvattest-progress", daemon=True)
            self._thread.start()

    def end(self, wait: object) -> None:
        """The wait is over."""
        self._waits.pop(wait, None)

    def update(self, detail: str) -> None:
        """Show the current step, in a few words."""
        began, _ = self._waits.get(self, (time.monotonic(), ""))
        self._waits[self] = (began, f"{self._what}: {detail}"[:66])

    def __enter__(self) -> Progress:
        if self._what:
            self.begin(self, self._what)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(1.0)
        self._erase()

    def _run(self) -> None:
        interval = _INTERVAL if self._terminal else min(_LINE_INTERVAL, max(self._delay, _INTERVAL))
        while not self._over.wait(interval):
            now = time.monotonic()
            slow = [item for item in list(self._waits.values()) if now - item[0] >= self._delay]
            if not slow:
                self._erase()
                continue
            began, words = min(slow)
            more = f" and {len(slow) - 1} more" if len(slow) > 1 else ""
            line = f"{words}{more} ({now - began:.0f} s)"
            self._write(f"{_CLEAR}{line}" if self._terminal else f"{line}\n")
            self._written = self._terminal

    def _erase(self) -> None:
        if self._written:
            self._written = False
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        # The terminal may go away; the work goes on without it.
        with suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
            self._stream.flush()


@contextmanager
def logged(*, debug: bool, delay: float = _DELAY) -> Iterator[None]:
    """Say on stderr what the loggers ``nvattest.*`` say: every record with ``debug``, else what is waited for."""
    import logging

    progress = Progress(lines=True, delay=delay)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message, wait = record.getMessage(), getattr(record, "wait", None)
            if debug:
                seconds = time.strftime("%H:%M:%S", time.localtime(record.created))
                say(f"{seconds}.{int(record.msecs):03d} {record.name}: {clean(message)}", error=True)
            elif getattr(record, "over", True):
                progress.end(wait)
            elif wait is not None:
                progress.begin(wait, f"waiting for {clean(message, 200)[:56]}")

    logger, handler = logging.getLogger("nvattest"), Handler(logging.DEBUG)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        with progress:
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
