"""Tests of the client against the real server."""

from . import support  # noqa: F401  finds the client, wherever the tests are started
