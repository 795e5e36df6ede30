"""memsrc upscale of a film, beside the network alone on its frames: wall time, CPU time, peak memory.

    python benchmarks/films.py [WIDTHxHEIGHT [FRAMES]]

A film is made of photographs that move (H.264, AAC); x2-tiny enlarges it, one thread, to H.264 as by default, within 64
MB, and to MPEG-4, whose encoder takes hardly any time.  The network alone is `Upscaler` on the same frames, already in
memory.  Each row is a process of its own; its memory is the process's peak less what it has after importing everything.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from machine import machine

from memsr_compiler import Upscaler
from memsr_compiler.images.files import sample_photographs

RATE = 25


def write_film(path: Path, width: int, height: int, frames: int) -> None:
    photograph = np.tile(sample_photographs()[0], (4, 4, 1))
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "23"})
        voice = container.add_stream("aac", rate=44100, layout="mono")
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            top, left = 2 * i % 400, 3 * i % 400
            pixels = np.ascontiguousarray(photograph[top : top + height, left : left + width])
            frame = VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        sound = np.zeros((1, 44100 * frames // RATE), np.int16)
        heard = AudioFrame.from_ndarray(sound, format="s16", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = 44100, 0, Fraction(1, 44100)
        container.mux([*stream.encode(None), *voice.encode(heard), *voice.encode(None)])


def status(key: str) -> int:
    """Bytes, of this process."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) << 10


def one(way: str, film: Path) -> None:
    """Print wall and CPU seconds, and bytes of memory."""
    from memsr_compiler import cli
    from memsr_compiler.commands import upscale_film  # noqa: F401

    if way == "network":
        with av.open(film) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        upscale = Upscaler("x2-tiny", threads=1)
        upscale(frames[0][:40, :72])
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    wall, cpu = time.perf_counter(), time.process_time()
    if way == "network":
        for pixels in frames:
            upscale(pixels)
    else:
        options = {"64MB": ["--max-memory", "64MB"], "mpeg4": ["--codec", "mpeg4"]}.get(way, [])
        sys.argv = ["memsrc", "upscale", str(film), str(film.with_name(f"{way} {film.name}")), "--model", "x2-tiny"]
        sys.argv += ["--threads", "1", "-q", *options]
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                cli.main()
            except SystemExit as end:
                if end.code:
                    raise RuntimeError(f"exit status {end.code}") from None
    print(time.perf_counter() - wall, time.process_time() - cpu, status("VmHWM") - before)


def main(width: int, height: int, frames: int) -> None:
    print(machine(), f"PyAV {av.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for count in (frames, 4 * frames):
            film = Path(folder, f"{count}.mp4")
            write_film(film, width, height, count)
            print(f"{width}x{height}, {count} frames")
            first = (0.0, 0.0)
            for way in ("network", "film") if count > frames else ("network", "film", "64MB", "mpeg4"):
                command = [sys.executable, __file__, way, str(film)]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                wall, cpu, memory = map(float, said)
                first = first if first[0] else (wall, cpu)
                speed = f"{count / wall:5.1f} frames a second, {wall / first[0]:.2f} of the time"
                print(f"  {way:8} {speed}, {cpu / first[1]:.2f} of the CPU time, {memory / 2**20:6.1f} MiB", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3 and "x" not in sys.argv[1]:
        one(sys.argv[1], Path(sys.argv[2]))
    else:
        size, frames = (*sys.argv[1:], *("480x270", "100")[len(sys.argv) - 1 :])
        width, height = map(int, size.split("x"))
        main(width, height, int(frames))
