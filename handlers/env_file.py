"""ENV_FILE: environment variables from a file, in the format of `docker --env-file`."""

import os
import re
from collections.abc import MutableMapping
from pathlib import Path

from .settings import SettingsError

# A value is literal. One that begins with a quote would have the quotes in it: an error.
LINE = re.compile(r"""\s*([A-Za-z_][A-Za-z0-9_]*)=((?!["'])[^\0]*)|\s*(#.*)?""")


def load_env_file(environ: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Add the variables in the file that ENV_FILE names, if it is set; return the added ones.

    Variables that are in `environ` already keep their value, even if it is blank. Raises
    SettingsError with a line for each wrong line, without its text, which may be a secret.
    """
    path = environ.get("ENV_FILE", "").strip()
    lines = [LINE.fullmatch(line) for line in _read(path).split("\n")] if path else []
    told = "must be NAME=VALUE, without spaces around NAME and quotes around VALUE"
    if wrong := [f"{path}:{number}: {told}" for number, line in enumerate(lines, 1) if not line]:
        raise SettingsError(wrong)
    added = {line[1]: line[2] for line in lines if line and line[1] and line[1] not in environ}
    environ.update(added)
    return added


def _read(path: str) -> str:
    try:
        # A value may have bytes that are not UTF-8; editors on Windows begin the file with a BOM.
        return Path(path).read_text("utf-8-sig", "surrogateescape")
    except OSError as error:
        text = f"ENV_FILE {path}: {error.strerror}; set it to a readable file, or unset it"
        raise SettingsError([text]) from None
