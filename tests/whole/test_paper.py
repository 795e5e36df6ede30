"""docs/paper.md: its functions exist and cite their numbers, and no file cites a number that has no row there."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_ONE = r"\d+(?:\.\d+)*"
_NUMBERS = rf"({_ONE})((?:,? (?:and|to|or) {_ONE}|, {_ONE})*)"
_KINDS = {
    "Eq.": rf"\bEq\. {_NUMBERS}",
    "Lemma": rf"\bLemma {_NUMBERS}",
    "Prop.": rf"\bProp\. {_NUMBERS}",
    "Algorithm": rf"\bAlgorithm {_NUMBERS}",
    "Sec.": rf"\bSec\. {_NUMBERS}",
    "Table": rf"\bTable {_NUMBERS}",
    "Figure": rf"\bFig(?:ure|\.) {_NUMBERS}",
}


def cited(text: str) -> set[str]:
    """Numbers that a text cites: 'Eq. 5 to 7 and 15, Lemma 3.1' -> Eq. 5, Eq. 6, Eq. 7, Eq. 15, Lemma 3.1."""
    found = set()
    for kind, pattern in _KINDS.items():
        for first, more in re.findall(pattern, re.sub(r"\s+", " ", text)):
            found.add(f"{kind} {first}")
            last = first
            for word, number in re.findall(rf"(,|and|to|or) ({_ONE})", more):
                span = range(int(last) + 1, int(number)) if word == "to" else ()
                found |= {f"{kind} {n}" for n in (*span, number)}
                last = number
    return found


@dataclass(frozen=True)
class Row:
    """One line of the table: its numbers, the functions that are it, and the files and folders that may cite it."""

    numbers: frozenset[str]
    functions: tuple[tuple[str, str], ...]
    places: tuple[str, ...]


def rows() -> list[Row]:
    found = []
    for line in (ROOT / "docs" / "paper.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.split(" | ")]
        if len(cells) != 5 or not cited(cells[0]):
            continue
        functions = tuple(re.findall(r"`([\w/]+\.py): ([\w.]+)`", cells[2]))
        places = re.findall(r"`([\w/]+(?:\.py|/))", cells[2])
        found.append(Row(frozenset(cited(cells[0])), functions, tuple(places)))
    return found


ROWS = rows()
SOURCES = [
    *(p for p in sorted((ROOT / "memsr_compiler").rglob("*.py")) if "passes" not in p.parts),
    *sorted((ROOT / "passes").glob("*.py")),
]


def docstrings(path: Path, name: str) -> str:
    """Docstrings of a function, class or method (Basis.solve_kernel), of what it is in, and of its module."""
    node: ast.Module | ast.ClassDef | ast.FunctionDef = ast.parse(path.read_text("utf-8"))
    texts = [ast.get_docstring(node) or ""]
    for part in name.split("."):
        named = [n for n in node.body if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and n.name == part]
        assert named, f"docs/paper.md: {path.relative_to(ROOT)} has no {name}"
        node = named[0]
        texts.append(ast.get_docstring(node) or "")
    return "\n".join(texts)


def test_numbers_are_read_as_people_write_them() -> None:
    assert cited("Eq. 5 to 7 and 15; Lemma 3.1, MemSR's\n  Figure 1") == {
        *("Eq. 5", "Eq. 6", "Eq. 7", "Eq. 15"),
        *("Lemma 3.1", "Figure 1"),
    }
    assert cited("Eq. 1, 2, Fig. 3, Sec. 3.2.3") == {"Eq. 1", "Eq. 2", "Figure 3", "Sec. 3.2.3"}
    assert cited("equation 4 of Shi et al., section 4.3, 3 figures") == set()


def test_the_table_has_all_of_the_paper() -> None:
    numbers = set().union(*(row.numbers for row in ROWS))
    expected = {f"Eq. {n}" for n in range(1, 16)} | {"Lemma 3.1", "Prop. 3.6", "Algorithm 1"}
    expected |= {f"Sec. 3.{n}" for n in range(2, 6)} | {f"Table {n}" for n in (1, 2, 3, 4, 5, 6, 7, 10, 11)}
    expected |= {f"Figure {n}" for n in (1, 3, 4, 5, 6, 7, 8)}
    assert numbers >= expected, sorted(expected - numbers)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ", ".join(sorted(row.numbers)))
def test_every_function_of_the_table_exists_and_cites_its_number(row: Row) -> None:
    for path, name in row.functions:
        assert (ROOT / path).is_file(), f"docs/paper.md: there is no {path}"
        missing = row.numbers - cited(docstrings(ROOT / path, name))
        assert not missing, f"{path}: {name} does not cite {', '.join(sorted(missing))}"
    for place in row.places:
        assert (ROOT / place).exists(), f"docs/paper.md: there is no {place}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_number_that_a_file_cites_stands_in_its_row(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    here = [row for row in ROWS if any(name.startswith(p) if p.endswith("/") else name == p for p in row.places)]
    unknown = cited(path.read_text("utf-8")) - set().union(*(row.numbers for row in here))
    assert not unknown, f"{name} cites {', '.join(sorted(unknown))}; is it that? docs/paper.md has no such row for it"
