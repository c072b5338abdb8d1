"""Makes the demo's video and HLS playlist from its picture: ``make_video.py FOLDER``.

Needs ffmpeg with libvpx and libx264. The files that it made are in scripts/demo/objects.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PICTURE = Path(__file__).parent / "picture.jpg"

# A moving crop of the picture. The bar at the lower edge shows the position in the video, so that
# one sees where a seek has led to.
PAN = "crop=960:540:(in_w-960)*t/{seconds}:(in_h-540)*(0.5-0.5*cos(2*PI*t/{seconds}))"
BAR = "color=c=0xffd080:s={width}x4:r=15[bar];[pan][bar]overlay=x=W*t/{seconds}-W:y=H-4:shortest=1"


def ffmpeg(width: int, height: int, seconds: int, *output: str) -> None:
    """Run ffmpeg with the moving picture as its input."""
    pan = f"{PAN.format(seconds=seconds)},scale={width}:{height}[pan]"
    bar = BAR.format(width=width, seconds=seconds)
    source = ("-loop", "1", "-framerate", "15", "-i", str(PICTURE))
    drawing = ("-filter_complex", f"[0:v]{pan};{bar}", "-t", str(seconds), "-pix_fmt", "yuv420p")
    # "bitexact" leaves out dates and versions: the same ffmpeg makes the same files again.
    quiet = ("-hide_banner", "-loglevel", "error", "-y")
    exact = ("-fflags", "+bitexact", "-flags:v", "+bitexact", "-threads", "1")
    subprocess.run(["ffmpeg", *quiet, *source, *drawing, *exact, *output], check=True)


def main(folder: Path) -> None:
    """Write the video and the playlist with its segments."""
    (folder / "hls").mkdir(parents=True, exist_ok=True)
    # A key frame each second, and the index of them (the cues) before the first frame: a player
    # finds each second with one range request.
    webm = ("-c:v", "libvpx", "-b:v", "160k", "-g", "15", "-cues_to_front", "1")
    ffmpeg(480, 270, 24, *webm, str(folder / "lake.webm"))
    # H.264 in MPEG-TS, which all HLS players play.
    h264 = ("-c:v", "libx264", "-profile:v", "baseline", "-b:v", "60k", "-g", "30")
    hls = ("-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod", "-hls_list_size", "0")
    segments = ("-hls_segment_filename", str(folder / "hls" / "segment%d.ts"))
    ffmpeg(240, 136, 6, *h264, *hls, *segments, str(folder / "hls" / "index.m3u8"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
