"""Films: decoded, enlarged frame by frame, encoded in parts, put together with the sound of the original."""
