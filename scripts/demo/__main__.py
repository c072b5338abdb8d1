"""The demo: starts the embedded store and upstream, then becomes the service itself.

python scripts/demo        (or: python service.py --demo)
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
SERVICE = HERE.parent.parent / "service.py"
BUCKET = "demo"

# The key and the file of each object in the embedded store. The route /objects/{key} serves those
# below `public/`.
OBJECTS = {
    "test/1/image.jpg": "picture.jpg",
    "public/document.pdf": "objects/document.pdf",
    "public/text.txt": "objects/text.txt",
    "public/Grüße vom See.txt": "objects/text.txt",
    "public/videos/lake.webm": "objects/lake.webm",
    "public/videos/7/index.m3u8": "objects/hls/index.m3u8",
    "public/videos/7/segment0.ts": "objects/hls/segment0.ts",
    "public/videos/7/segment1.ts": "objects/hls/segment1.ts",
    "public/videos/7/segment2.ts": "objects/hls/segment2.ts",
}

# A person's own store, profile and limits are not for the demo's.
THEIRS = ("AWS_", "S3_", "BYTES_", "IMAGE_", "ENV_FILE")


def start(script: str, *arguments: str) -> IO[str]:
    """Start a helper process; returns its output, whose first line is the port it listens on.

    It lives as long as the pipe to its standard input is open. That end is inherited by the
    program that this one becomes, so whatever ends the service ends its helpers too.
    """
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    helper = subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments],
        stdin=reading,
        stdout=subprocess.PIPE,
        text=True,
        # Not in the terminal's group: Ctrl-C is for the service.
        start_new_session=True,
    )
    os.close(reading)
    assert helper.stdout is not None
    return helper.stdout


def port_of(output: IO[str]) -> int:
    """Wait until the helper listens; exits when it ended instead (it has said why)."""
    line = output.readline().strip()
    if not line:
        raise SystemExit(f"the demo needs {HERE / 'requirements.txt'} installed; see above")
    return int(line)


def main() -> None:
    """Start the helpers and become the service."""
    for name in list(os.environ):
        is_theirs = name.upper().startswith(THEIRS) and name != "S3_OBJECTS"
        if is_theirs or name.upper().endswith("_PROXY"):
            del os.environ[name]
    store = start("store.py", BUCKET, *(f"{key}={HERE / name}" for key, name in OBJECTS.items()))
    upstream = start("upstream.py")
    os.environ.setdefault("S3_OBJECTS", "public/")
    os.environ.update(
        S3_IMAGE_BUCKET=BUCKET,
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{port_of(store)}",
        AWS_REGION="us-east-1",
        AWS_ACCESS_KEY_ID="demo",
        AWS_SECRET_ACCESS_KEY="demo",
        BYTES_URL=f"http://127.0.0.1:{port_of(upstream)}/stream-bytes/{{size}}",
    )
    os.execv(sys.executable, [sys.executable, str(SERVICE)])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
