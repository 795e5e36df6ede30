"""Encoders as they are set up."""

from __future__ import annotations

import io
import os
import sys
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("av", reason="films need the extra [video]")

import av

from memsr_compiler.video.codecs import CODECS, Encoding
from memsr_compiler.video.colours import BT709, Colours


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how urgent threads are")
@pytest.mark.parametrize("codec", CODECS)
def test_no_encoder_works_in_real_time(codec: str) -> None:
    """As root, which containers often have, SVT-AV1 put itself, and whoever called it, before all else."""
    colours = Colours(BT709, False, 1, 1)
    form = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    encoding = Encoding(codec, CODECS[codec].quality or None, 64, 64, form, colours, Fraction(25), None)
    frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24").reformat(format=form)
    before = os.sched_getscheduler(0)
    with av.open(io.BytesIO(), "w", format="matroska") as container:
        stream = encoding.add_to(container)
        container.mux(stream.encode(frame))
        threads = map(int, os.listdir("/proc/self/task"))
        assert {os.sched_getscheduler(thread) for thread in threads} == {before} != {os.SCHED_FIFO}
        container.mux(stream.encode(None))
