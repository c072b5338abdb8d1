"""What it was measured on, and with what."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from . import nginx, wrk
from .process import ROOT
from .scale import MIB

_SERVICE = ("starlette", "uvicorn", "uvloop", "httptools", "aiohttp", "aiobotocore", "botocore")
_PEERS = ("boto3", "fastapi", "obstore")


def machine() -> Iterator[str]:
    """Yield a line of Markdown for each thing that matters."""
    yield time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MIB / 1024
    yield f"{os.cpu_count()} cores of {_processor()}, {memory:.0f} GiB, {_system()}"
    yield f"downspout {_commit()}, Python {platform.python_version()}"
    yield ", ".join(f"{name} {version(name)}" for name in (*_SERVICE, *_PEERS))
    yield f"nginx {nginx.version()}, wrk {wrk.version()}"


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _system() -> str:
    return f"{platform.system()} {platform.release()}"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty=, with changes"]
    said = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True).stdout
    return said.strip() or "of no commit"
