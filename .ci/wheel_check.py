"""Is what dist/ holds what a user should get?  Run with the Python of an environment that has the dependencies.

Looks into the sdist and the wheel, installs the wheel in an environment of its own, and uses it from an empty folder.
"""

import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent

IMPORTS = """
import importlib.util
import sys
import memsr_compiler
import memsr_compiler.passes
assert memsr_compiler.__file__.startswith(sys.prefix), memsr_compiler.__file__
assert memsr_compiler.passes.PLAIN
assert importlib.util.find_spec("passes") is None, "passes was installed as a module of its own"
"""


def expected() -> set[str]:
    """The files of the package, as they are to be installed."""
    kinds = ("**/*.py", "**/*.css", "**/*.png", "models/*.json", "models/*.onnx", "py.typed")
    wanted = [path for kind in kinds for path in ROOT.glob(f"memsr_compiler/{kind}")]
    names = {path.relative_to(ROOT).as_posix() for path in wanted}
    return names | {f"memsr_compiler/passes/{path.name}" for path in ROOT.glob("passes/*.py")}


def check_wheel(wheel: Path) -> None:
    names = [n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n]
    assert len(names) == len(set(names)), "the wheel has a file twice"
    assert set(names) == expected(), f"in the wheel or in the tree, not in both: {sorted(set(names) ^ expected())}"


def check_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(m.isfile() or m.isdir() for m in members), "the sdist has a link"
    inside = [PurePosixPath(*PurePosixPath(m.name).parts[1:]).as_posix() for m in members]
    assert "LICENSE" in inside, "the sdist has no LICENSE"
    passes = sorted(PurePosixPath(n).name for n in inside if "passes/" in n and n.endswith(".py") and "tests/" not in n)
    assert passes == sorted(p.name for p in ROOT.glob("passes/*.py")), f"passes in the sdist: {passes}"


def check_installed(wheel: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        where, empty = Path(folder, "venv"), Path(folder, "empty")
        empty.mkdir()
        venv.create(where, with_pip=True, symlinks=sys.platform != "win32")
        scripts = where / ("Scripts" if sys.platform == "win32" else "bin")
        python = str(scripts / "python")
        run(
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            str(wheel),
            cwd=empty,
        )
        site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=empty).strip()
        # The dependencies are those of the environment this runs in; a path in a .pth file does not run its .pth files,
        # so the editable installation there stays out.
        Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        run(python, "-c", IMPORTS, cwd=empty)
        for command in ([str(scripts / "memsrc")], [python, "-m", "memsr_compiler"]):
            assert "convert" in run(*command, "--help", cwd=empty)
        left = [p.name for p in empty.iterdir()]
        assert not left, f"--help left {left}"


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def main(folder: Path) -> None:
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    check_installed(wheel.resolve())
    print(f"{wheel.name} and {sdist.name} are complete; the wheel works on its own")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
