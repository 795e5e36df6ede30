"""The network that the tests of files share."""

from __future__ import annotations

import pytest
from helpers.plain_files import teacher

from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain.network import PlainNet


@pytest.fixture(scope="module")
def net() -> PlainNet:
    return compile_to_plain(teacher(), align=4)
