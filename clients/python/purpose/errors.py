"""What can go wrong, as exceptions."""


class PurposeError(Exception):
    """The base of the others."""


class Declined(PurposeError):
    """The server declined a request: `code` is stable, `words` are for people."""

    def __init__(self, text):
        super().__init__(text)
        self.code, _, self.words = text.partition(": ")

    @property
    def number(self):
        """The one number of `rate-limited` and `not-ready` (seconds), of a range's `too-large` (a
        time) and of `bad-offset` (bytes); None where there is none."""
        digits = "".join(c if c.isdigit() else " " for c in self.words).split()
        return int(digits[0]) if digits else None


class Disconnected(PurposeError, ConnectionError):
    """The connection broke, and the call was not one that is safe to repeat."""


class SessionEnded(PurposeError):
    """There is no session any more: it ended, or another connection took it over."""


class ProtocolError(PurposeError):
    """The server sent what the protocol does not know."""
