"""Run the command of service.py in the process of the tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import pytest

import service


class Ended(NamedTuple):
    """The exit code of a command, and its outputs."""

    code: int
    stdout: str
    stderr: str


RunMain = Callable[..., Ended]
"""The type of the fixture `run_main`."""


def run_main_with(
    patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], *arguments: str, **environ: str
) -> Ended:
    """Run `service.main` with these arguments, and with `environ` as its whole environment."""
    with patch.context() as patched:
        for name in os.environ:
            patched.delenv(name)
        for name, value in environ.items():
            patched.setenv(name, value)
        try:
            code = service.main(list(arguments))
        except SystemExit as end:
            code = int(end.code or 0)
    return Ended(code, *capture.readouterr())
