"""httpbin as a process of its own, for the demo and the tests.

Prints the port it listens on as one line, and ends when its standard input does.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import suppress

from werkzeug.serving import make_server


def main() -> None:
    """Serve until the standard input ends."""
    # werkzeug's line for each request, and httpbin's about documentation it has none of.
    logging.disable(logging.WARNING)
    from httpbin import app  # noqa: PLC0415 - it warns while it is imported

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with suppress(BrokenPipeError):  # Whoever started it may be gone by now.
        os.write(sys.stdout.fileno(), f"{server.server_port}\n".encode())
    sys.stdin.read()


if __name__ == "__main__":
    main()
