"""The tables and figures of MemSR, each a module with `make`, and each a command: python -m benchmarks.paper NAME."""
