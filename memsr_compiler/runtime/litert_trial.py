"""Runs a TFLite file on an image of zeros, in a process of its own: LiteRT ends the process that has a bad file.

`python litert_trial.py`, the file at standard input; status 1 and the reason, on standard error, where it does not run
at any size.  It imports nothing of ours, which would take long.
"""

from __future__ import annotations

import sys

SIDES = (16, 64, 256)  # of the image where the file fixes none


def main() -> str:
    """The reason for which it does not run; empty if it does."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    data, reason = sys.stdin.buffer.read(), ""
    for side in SIDES:
        try:
            interpreter = Interpreter(model_content=data, num_threads=1)  # a new one, since failing spoils it
            (image,) = interpreter.get_input_details()
            shape = [int(n) if n > 0 else side for n in image["shape_signature"]]
            interpreter.resize_tensor_input(image["index"], shape, strict=True)
            interpreter.allocate_tensors()
            interpreter.set_tensor(image["index"], np.zeros(shape, image["dtype"]))
            interpreter.invoke()
            return ""
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
    return reason


if __name__ == "__main__":
    sys.exit(main() or None)
