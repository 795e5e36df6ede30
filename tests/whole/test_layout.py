"""Who imports whom, and what is installed: the layout, as CONTRIBUTING.md states it."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import memsr_compiler

ROOT = Path(__file__).parents[2]

# What trust rests on uses no more of ours than this, whatever the order would allow.
TRUSTED = {
    "ir": {"errors"},
    "proof": {"errors", "ir", "torch_helpers"},
    "passes": {"errors", "ir", "analysis"},
}
CHECKER = {"errors", "ir", "proof.certificate", "proof.forms", "proof.rows"}

# The only folders that import these, at their top or inside a function.
ONLY = {
    "torch.fx": {"trace"},
    "torch.export": {"trace", "teachers"},
    "onnx": {"plain", "quantization", "runtime", "trace"},
    "onnxruntime": {"runtime", "quantization"},
    "tflite": {"tflite"},
    "ai_edge_litert": {"runtime"},
    "flatbuffers": {"tflite"},
    "networkx": {"analysis", "ir"},
    "PIL": {"images", "reports"},
    "pyvips": {"images"},
    "av": {"video"},
    "accelerate": {"commands", "training"},
    "tensorboard": {"training"},
    "yaml": {"commands"},
    "spandrel": {"teachers"},
    "rich": {"commands"},
    "typer": {"cli", "commands"},
    "ray": set(),
}


def order() -> dict[str, int]:
    """Every folder and file at the top of the package, by its line in CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    section = text.partition("## Where things are")[2].partition("\n## ")[0]
    return {name: i for i, name in enumerate(re.findall(r"^ {4}(\w+)/? ", section, re.MULTILINE))}


def sources() -> dict[str, Path]:
    """Every file of the package, by its module name; passes once, as memsr_compiler.passes."""
    files = {p.relative_to(ROOT): p for p in ROOT.glob("memsr_compiler/**/*.py") if "passes" not in p.parts}
    files |= {"memsr_compiler" / p.relative_to(ROOT): p for p in ROOT.glob("passes/*.py")}
    return {".".join(p.with_suffix("").parts).removesuffix(".__init__"): path for p, path in files.items()}


def folder(module: str) -> str:
    """memsr_compiler.trace.builder -> trace;  memsr_compiler -> (nothing)"""
    return module.partition(".")[2].partition(".")[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that are imported, or reached through `torch`, when the code runs (so not for annotations only)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            yield f"torch.{node.attr}"
        yield from imports(node)


CODE = {module: ast.parse(path.read_text("utf-8")) for module, path in sources().items()}
IMPORTS = {module: sorted(set(imports(tree))) for module, tree in CODE.items()}


def test_every_folder_has_its_line_in_contributing() -> None:
    assert sorted(order()) == sorted({folder(module) for module in CODE} - {""})


def test_folders_use_only_what_is_above_them() -> None:
    line = order()
    wrong = []
    for module, names in IMPORTS.items():
        here = folder(module)
        for used in {folder(name) for name in names if name.startswith("memsr_compiler.")} - {here}:
            fits = used in TRUSTED[here] if here in TRUSTED else line[used] < line[here] if here else used == "version"
            if not fits:
                wrong.append(f"{module} uses {used}")
    assert not wrong, "\n".join(wrong)


def test_the_checker_knows_only_the_claim_and_what_ops_mean() -> None:
    for module in ("checker", "forms", "rows"):
        ours = {n for n in IMPORTS.get(f"memsr_compiler.proof.{module}", ()) if n.startswith("memsr_compiler.")}
        assert not {n for n in ours if not any(f"{n}.".startswith(f"memsr_compiler.{known}.") for known in CHECKER)}


def test_who_may_import_what() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        for name in names
        for what, folders in ONLY.items()
        if f"{name}.".startswith(f"{what}.") and folder(module) not in folders
    ]
    assert not wrong, "\n".join(wrong)


def test_no_public_name_is_a_file_or_folder_of_the_package() -> None:
    """Importing a submodule sets an attribute of the package: it would stand in place of the name."""
    entries = {path.stem for path in (ROOT / "memsr_compiler").iterdir()}
    assert not entries & set(dir(memsr_compiler))


def test_nothing_but_the_command_line_prints() -> None:
    calls = [(module, node) for module, tree in CODE.items() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    printing = [f"{module}, line {call.lineno}" for module, call in calls if ast.unparse(call.func) == "print"]
    assert not [place for place in printing if not place.startswith("memsr_compiler.cli,")]


def test_the_packages_of_setup_cfg_are_those_of_the_tree() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    folders = {module for module, path in sources().items() if path.name == "__init__.py"}
    assert sorted(listed) == sorted(folders)
    assert config["options"]["package_dir"].split("=")[0].strip() == "memsr_compiler.passes"


def test_passes_have_one_name() -> None:
    link = ROOT / "memsr_compiler" / "passes"  # or what Git makes of it where there are no symbolic links
    assert (link.readlink() if link.is_symlink() else Path(link.read_text("utf-8"))) == Path("../passes")
    loaded = modules_after("import memsr_compiler.passes, memsr_compiler.lowering.compile")
    assert "memsr_compiler.passes.fuse_1x1" in loaded
    assert not [name for name in loaded if name.split(".")[0] == "passes"]


def test_help_does_not_wait_for_torch() -> None:
    loaded = modules_after("import memsr_compiler, memsr_compiler.cli")
    assert not loaded & {"torch", "onnx", "onnxruntime", "networkx", "numpy", "PIL", "av"}


def test_running_a_plain_network_does_not_wait_for_torch() -> None:
    assert not {"torch", "av"} & modules_after("import memsr_compiler.commands.upscale")


@pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="films need the extra [video]")
def test_enlarging_a_film_does_not_wait_for_torch() -> None:
    assert "torch" not in modules_after("import memsr_compiler.commands.upscale_film")


def test_converting_does_not_wait_for_symbols_of_sizes() -> None:
    """Of networks without programs of torch.export nobody asks for them."""
    loaded = modules_after("import memsr_compiler.commands.convert")
    assert "torch" in loaded and not loaded & {"sympy", "onnxruntime", "torch._dynamo"}


def modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nsys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.split())
