"""The exceptions of the client."""


import re

# Digits of the largest number in a message.
_DIGITS_MAX = 19


class PurposeError(Exception):
    """Base class of the exceptions."""


class Declined(PurposeError):
    """The server declined a request: `code` is stable, `words` is a message for people."""

    def __init__(self, text):
        super().__init__(text)
        self.code, _, self.words = text.partition(": ")

    @property
    def number(self):
        """The first number in the message; None if there is none.

        `rate-limited`, `not-ready`: seconds. `too-large`: a time. `bad-offset`: bytes."""
        found = re.search("[0-9]+", self.words)
        return int(found[0]) if found and len(found[0]) <= _DIGITS_MAX else None


class Disconnected(PurposeError, ConnectionError):
    """The connection broke during a call that is not idempotent."""


class SessionEnded(PurposeError):
    """There is no session: it has ended, or another connection has taken it over."""


class ProtocolError(PurposeError):
    """The server violated the protocol."""
