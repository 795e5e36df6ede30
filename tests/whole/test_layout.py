"""Who imports whom, and what is installed: the layout, as tables."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

# A unit (a module or a folder of the package) imports from lines above its own, and from itself.
LAYERS = (
    {"digests", "errors", "kernels", "keys", "page", "plain_info", "threads", "version"},
    {"atomic", "charts", "families", "images", "ir", "modules", "ort", "pickles", "resize", "takes"},
    {"certificate", "drawing", "engine", "equivalence", "exported", "interp", "manifest", "metrics", "rewrite"}
    | {"rowfiles", "runtime", "scatter", "schedule", "statedict"},
    {"bands", "checker", "reorder", "scoring", "skeleton", "validate"},
    {"costs", "passes", "pipeline", "plain", "plain_file", "promise", "trace"},
    {"compile", "loading", "storing", "upscaler"},
    {"calibrate", "export", "inspection", "report", "storage", "student"},
    {"quantization"},
    {"opening", "similarity", "student_report", "training"},
    {"enlarge", "footprint"},
    {"bench"},
    {"commands"},
    {"cli"},
    {"__main__"},
)

# The units on which trust rests import no more than this of ours, whatever their line would allow.
STRICT = {
    "equivalence": {"errors", "modules"},
    "modules": {"errors"},
    "ir": {"errors"},
    "interp": {"ir", "kernels"},
    "certificate": {"errors", "ir"},
    "checker": {"certificate", "errors", "ir"},
    "passes": {"errors", "ir", "kernels", "reorder", "rewrite", "schedule"},
    "pipeline": {"errors", "ir", "rewrite", "validate"},
}

# The only units that import these, at their top or inside a function.
ONLY = {
    "memsr_compiler.passes": {"calibrate", "compile", "inspection", "passes", "report", "student"},
    "torch.fx": {"trace"},
    "torch.export": {"trace", "exported"},
    "onnx": {"engine", "export", "plain_file", "quantization", "skeleton", "trace"},
    "onnxruntime": {"ort", "quantization"},
    "accelerate": {"commands", "training"},
    "tensorboard": {"training"},
    "yaml": {"commands"},
    "networkx": {"ir", "reorder", "rewrite", "schedule"},
    "PIL": {"images", "scatter"},
    "pyvips": {"rowfiles"},
    "rich": {"commands"},
    "typer": {"cli"},
}


def sources() -> dict[str, Path]:
    """Every file of the package, by its module name; passes once, as memsr_compiler.passes."""
    files = {p.relative_to(ROOT): p for p in ROOT.glob("memsr_compiler/**/*.py")}
    files |= {"memsr_compiler" / p.relative_to(ROOT): p for p in ROOT.glob("passes/*.py")}
    return {".".join(p.with_suffix("").parts).removesuffix(".__init__"): path for p, path in files.items()}


def unit(module: str) -> str:
    """memsr_compiler.trace.fx_reader -> trace;  memsr_compiler -> (nothing)"""
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


def test_every_unit_has_its_place_and_only_one() -> None:
    placed = [name for layer in LAYERS for name in layer]
    assert sorted(placed) == sorted({unit(module) for module in CODE} - {""})


def test_imports_point_down() -> None:
    allowed = {"": {"version"}}
    for i, layer in enumerate(LAYERS):
        allowed |= {here: STRICT.get(here, set().union(*LAYERS[:i])) | {here} for here in layer}
    wrong = [
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        for name in names
        if name.startswith("memsr_compiler.") and unit(name) not in allowed[unit(module)]
    ]
    assert not wrong


def test_who_may_import_what() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        for name in names
        for what, units in ONLY.items()
        if f"{name}.".startswith(f"{what}.") and unit(module) not in units
    ]
    assert not wrong


def test_nothing_but_the_command_line_prints() -> None:
    calls = [(module, node) for module, tree in CODE.items() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [f"{module}, line {call.lineno}" for module, call in calls if ast.unparse(call.func) == "print"]
    assert not [place for place in found if not place.startswith("memsr_compiler.cli,")]


def test_the_packages_of_setup_cfg_are_those_of_the_tree() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    folders = {module for module, path in sources().items() if path.name == "__init__.py"}
    assert sorted(listed) == sorted(folders)
    assert config["options"]["package_dir"].split("=")[0].strip() == "memsr_compiler.passes"


def test_passes_have_one_name() -> None:
    link = ROOT / "memsr_compiler" / "passes"
    assert link.is_symlink()
    assert link.readlink() == Path("../passes")
    loaded = modules_after("import memsr_compiler.passes, memsr_compiler.lowering.compile")
    assert "memsr_compiler.passes.fuse_1x1" in loaded
    assert not [name for name in loaded if name.split(".")[0] == "passes"]


def test_help_does_not_wait_for_torch() -> None:
    loaded = modules_after("import memsr_compiler, memsr_compiler.cli")
    assert not loaded & {"torch", "onnx", "onnxruntime", "networkx", "numpy", "PIL"}


def test_running_a_plain_network_does_not_wait_for_torch() -> None:
    assert "torch" not in modules_after("import memsr_compiler.commands.upscale")


def modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nsys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.split())
