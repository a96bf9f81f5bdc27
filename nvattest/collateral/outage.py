"""When a service counts as down: requests run in parallel, and each would find out by itself.

Until a host has answered, few requests wait for it; after a failure one at a time asks again, the longest waiting
first; after a whole round of failures the host is not asked any more.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from nvattest._waiting import Deadline

__all__ = ["OUTAGE_REQUESTS", "OUTAGE_SECONDS", "Failed", "GivenUp", "Host"]

# At most so many requests go to a host that is down. NVIDIA's program sends it 6, one after the other.
OUTAGE_REQUESTS: Final = 8
OUTAGE_SECONDS: Final = 3.0
# Half of the requests of an outage are left for later, and the chain of one GPU is asked about at once.
_UNPROVEN: Final = 4
_FEWEST_ROUNDS: Final = 3


class Failed(Exception):  # noqa: N818 - each error of a service is made from one
    """One attempt without a usable answer. ``again``: another attempt may have one."""

    def __init__(
        self, cause: str, code: str, *, again: bool, status: int = 0, retry_after: float = 0.0, request_id: str = ""
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.code = code
        self.again = again
        self.status = status
        self.retry_after = retry_after
        self.request_id = request_id


class GivenUp(Exception):  # noqa: N818 - an outcome, which becomes an error of the service
    """The host is not asked any more: ``attempts`` failed in a row, the last with ``cause``.

    Or it named a time after the deadline, before which nothing may be asked.
    """

    def __init__(self, cause: Failed, attempts: int) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.attempts = attempts


class Host:
    """The state of one host during one run, shared by its threads. ``retries`` is that of a single request."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._in_flight = 0
        self._answered = False
        self._refusals = 0
        # Since the last answer: failed attempts, rounds of attempts that were under way together, and their requests.
        self._failures = 0
        self._rounds = 0
        self._round = 0
        self._failed: set[object] = set()
        # Instants are seconds left to the deadline.
        self._since = 0.0
        self._not_before = float("inf")
        self._last: Failed | None = None
        self._given_up: GivenUp | None = None

    def enter(self, request: object, deadline: Deadline) -> tuple[int, float]:
        """Wait until ``request`` may be sent. Returns what ``failed`` wants to know, and the seconds to wait before.

        Raises:
            GivenUp: the host has been given up, or may not be asked again before the deadline.
            TimeoutError: the deadline passed before its turn came.
        """
        with self._changed:
            self._waiting.append(request)
            try:
                while self._given_up is None and not (self._waiting[0] is request and self._in_flight < self._limit()):
                    if deadline.passed:
                        raise TimeoutError
                    self._changed.wait(deadline.remaining())
            finally:
                self._waiting.remove(request)
                self._changed.notify_all()
            if self._given_up is not None:
                raise self._given_up
            if self._last is not None and self._not_before <= 0:
                # The requests that were under way have ended, and none has lifted the pause.
                raise GivenUp(self._last, self._failures)
            self._in_flight += 1
            if not self._failures:
                self._since = deadline.remaining()
            return self._round, deadline.remaining() - self._not_before if self._rounds else 0.0

    def _limit(self) -> float:
        if self._rounds:
            return 1
        if self._answered:
            return float("inf")
        # Without retries the first failure is the last, so one request finds out for all.
        return min(_UNPROVEN, OUTAGE_REQUESTS - self._refusals) if self._retries else 1

    def answered(self) -> None:
        """The request got an answer, good or bad: the host is there."""
        with self._changed:
            self._in_flight -= 1
            self._answered = True
            self._failures = self._rounds = 0
            self._round += 1
            self._failed.clear()
            self._not_before = float("inf")
            self._changed.notify_all()

    def refused(self, cause: Failed) -> None:
        """The request got an answer that the service never gives.

        A responder may not know a few certificates and all others. After as many requests as an outage costs, and no
        answer of the service among them, nothing more is asked.
        """
        with self._changed:
            self._in_flight -= 1
            self._refusals += 1
            if not self._answered and self._refusals >= OUTAGE_REQUESTS:
                self._give_up(cause, self._refusals)
            self._changed.notify_all()

    def failed(
        self,
        request: object,
        entered: int,
        cause: Failed,
        deadline: Deadline,
        delay: Callable[[int], float],
    ) -> float:
        """The request got no answer that counts. Returns the seconds until the host may be asked again.

        ``entered`` is what ``enter`` returned. ``delay`` gives the seconds for the number of rounds that failed since
        the last answer; of several failures the longest counts.
        """
        with self._changed:
            self._in_flight -= 1
            self._failures += 1
            self._last = cause
            self._failed.add(request)
            if entered == self._round:
                # Requests that were under way together fail for one reason.
                self._rounds += 1
                self._round += 1
            # One request that fails alone, where others had answers, says nothing of the host.
            exhausted = self._rounds > self._retries and not (self._answered and len(self._failed) == 1)
            too_many = self._failures >= OUTAGE_REQUESTS and self._rounds >= min(_FEWEST_ROUNDS, self._retries + 1)
            too_long = not cause.status and self._rounds > 1 and self._since - deadline.remaining() >= OUTAGE_SECONDS
            if exhausted or too_many or too_long:
                self._give_up(cause, self._failures)
            seconds = delay(self._rounds)
            self._not_before = min(self._not_before, deadline.remaining() - seconds)
            self._changed.notify_all()
            return seconds

    def give_up(self, cause: Failed) -> None:
        """Ask the host nothing more, since no other request can fare better. Requests that wait end."""
        with self._changed:
            self._give_up(cause, self._failures)
            self._changed.notify_all()

    @property
    def given_up(self) -> bool:
        """Whether the host is not asked any more."""
        return self._given_up is not None

    def _give_up(self, cause: Failed, attempts: int) -> None:
        if self._given_up is None:
            self._given_up = GivenUp(cause, attempts)
