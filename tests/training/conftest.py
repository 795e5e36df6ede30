"""Photographs, a teacher and its student."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from helpers.training import derive_student, forget_accelerator, new_teacher, write_networks, write_photographs

from memsr_compiler.plain.network import PlainNet
from memsr_compiler.teachers.families.edsr import EDSR

pytest.importorskip("accelerate", reason="needs memsr_compiler[train]")


@pytest.fixture(autouse=True)
def another_process() -> None:
    forget_accelerator()


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture
def teacher() -> EDSR:
    return new_teacher()


@pytest.fixture(scope="session")
def derived() -> PlainNet:
    return derive_student()


@pytest.fixture
def student(derived: PlainNet) -> PlainNet:
    return copy.deepcopy(derived)  # training changes it


@pytest.fixture(scope="session")
def networks(derived: PlainNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with teacher.pt and student.safetensors."""
    return write_networks(derived, tmp_path_factory.mktemp("networks"))
