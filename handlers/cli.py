"""The command `downspout sign`, also `python service.py sign`: prints a signed URL."""

import argparse
import re
from collections.abc import Sequence

from .access.signed_url import sign_url
from .env_file import load_env_file
from .settings import read_signing

EXIT_USAGE = 2  # as for argparse's own errors

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def main(arguments: Sequence[str] | None = None, prog: str = "downspout") -> None:
    """Run the command line, by default that of the process; exit with 2 on an error."""
    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("command", choices=["sign"], help="print a signed URL")
    parser.add_argument("url", help="URL or path of a download, with ?download=NAME if it has one")
    parser.add_argument("--expires", metavar="TIME", help="90s, 30m, 1h, 7d; 1h by default")
    parser.add_argument("--key", metavar="ID", help="id in URL_SIGNING_KEYS; the first by default")
    parser.add_argument("--root-path", default="", help="path at which the application is mounted")
    parser.add_argument(
        "--prefix", metavar="PATH", help="sign all URLs below PATH, for example /objects/videos/7/"
    )
    given = parser.parse_args(arguments)
    try:
        load_env_file()
        settings = read_signing()
        key = find_key(given.key, settings.url_signing_keys)
        lifetime = parse_lifetime(given.expires, settings.url_max_lifetime)
        root, prefix = given.root_path, given.prefix
        print(sign_url(given.url, key, lifetime=lifetime, root_path=root, prefix=prefix))  # noqa: T201
    except ValueError as error:
        parser.exit(EXIT_USAGE, f"{error}\n")


def find_key(key_id: str | None, keys: Sequence[str]) -> str:
    """Return the key with the id `key_id` (None: the first key); raises ValueError."""
    for key in keys:
        if key_id in (None, key.partition(":")[0]):
            return key
    raise ValueError(f"--key {key_id}: no such id in URL_SIGNING_KEYS")


def parse_lifetime(text: str | None, longest: float) -> float:
    """Return the seconds in a text such as "30m" (None: an hour); raises ValueError."""
    if text is None:
        return min(UNITS["h"], longest)
    parsed = re.fullmatch("([0-9]{1,10})([smhd]?)", text)
    if parsed is None:
        raise ValueError(f"--expires {text}: must be a number with s, m, h or d; for example 1h")
    seconds = int(parsed[1]) * UNITS[parsed[2]]
    if seconds > longest:
        raise ValueError(f"--expires {text}: URL_MAX_LIFETIME allows {longest:g} seconds")
    return seconds
