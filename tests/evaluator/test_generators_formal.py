"""Algebra, code, grids and graphs: every answer solved again by other means than the generator's."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import pytest

from tiltyard_eval.generators import LEVELS, REGISTRY, Rng

GROUPS = {"algebra", "code reading", "grids", "graphs"}

Fields = Mapping[str, Any]


def value(expression: str, **letters: Any) -> Any:
    """The value of a polynomial as it is written in a question, of numbers or of arrays of them."""
    python = re.sub(r"(?<=\d)(?=[a-z(])|(?<=[a-z)])(?=\()", "*", expression).replace("^", "**")
    return eval(python, {"__builtins__": {}}, letters)  # noqa: S307  our own text


def _linear_equation(fields: Fields) -> str:
    numbers = np.arange(-200, 201)
    sides = (value(fields[side], **{fields["letter"]: numbers}) for side in ("left", "right"))
    (solution,) = numbers[np.equal(*sides)]
    return str(solution)


def _two_unknowns(fields: Fields) -> str:
    x, y = np.meshgrid(np.arange(-40, 41), np.arange(-40, 41))
    fits = np.ones_like(x, dtype=bool)
    for equation in (fields["first"], fields["second"]):
        left, right = equation.split(" = ")
        fits &= value(left, x=x, y=y) == int(right)
    (solution,) = np.unique((x if fields["letter"] == "x" else y)[fits])
    return str(solution)


def _root(fields: Fields) -> str:
    numbers = np.arange(-40, 41)
    low, high = numbers[value(fields["expression"], x=numbers) == 0]
    return str(high if fields["which"] == "larger" else low)


def _compose(fields: Fields) -> str:
    functions = {name: lambda x, rule=fields[name]: value(rule, x=x) for name in "fg"}
    return str(eval(fields["call"], {"__builtins__": {}}, functions))  # noqa: S307  our own text


def _run(fields: Fields) -> str:
    printed: list[str] = []
    names = {"print": lambda shown: printed.append(str(shown)), "range": range, "sum": sum}
    exec(fields["code"], {"__builtins__": names})  # noqa: S102  our own text
    (line,) = printed
    return line


def _table(fields: Fields) -> np.ndarray:
    return np.array([line.split() for line in fields["grid"].splitlines()])


def _grid_sum(fields: Fields) -> str:
    sums = _table(fields).astype(int).sum(axis=1 if fields["line"] == "row" else 0)
    return str(sums[fields["n"] - 1])


def _grid_walk(fields: Fields) -> str:
    place = complex(fields["row"], fields["column"])
    for leg in fields["moves"].split(", "):
        name, steps = leg.split()
        for _ in range(int(steps)):
            place += {"up": -1, "down": 1, "left": -1j, "right": 1j}[name]
            assert min(place.real, place.imag) >= 1
    return f"{place.real:.0f} {place.imag:.0f}"


def _grid_neighbours(fields: Fields) -> str:
    marked = np.pad(_table(fields) == "x", 1)
    row, column = fields["row"], fields["column"]  # after the padding the cell counts from one in the array, too
    return str(marked[row - 1 : row + 2, column - 1 : column + 2].sum() - marked[row, column])


def _grid_path(fields: Fields) -> str:
    """By spreading from S until nothing changes."""
    table = np.pad(_table(fields), 1, constant_values="#")
    reached, steps = table == "S", 0
    while not reached[table == "E"]:
        near = [np.roll(reached, shift, axis) for shift in (-1, 1) for axis in (0, 1)]
        reached, steps = (reached | np.any(near, axis=0)) & (table != "#"), steps + 1
        assert steps < table.size
    return str(steps)


def _shortest(roads: str, start: str, end: str) -> str:
    """Floyd and Warshall's algorithm; a road without a length has 1."""
    found = re.findall(r"(\w)-(\w)(?: (\d+))?", roads)
    towns = sorted({town for a, b, _ in found for town in (a, b)})
    length = np.full((len(towns), len(towns)), np.inf)
    for a, b, size in found:
        i, j = towns.index(a), towns.index(b)
        length[i, j] = length[j, i] = int(size or 1)
    for k in range(len(towns)):
        length = np.minimum(length, length[:, [k]] + length[[k], :])
    return f"{length[towns.index(start), towns.index(end)]:.0f}"


def _reachable(fields: Fields) -> str:
    roads = re.findall(r"(\w)>(\w)", fields["roads"])
    towns = sorted({town for road in roads for town in road} | {fields["start"], fields["end"]})
    step = np.eye(len(towns), dtype=int)
    for a, b in roads:
        step[towns.index(a), towns.index(b)] = 1
    ways = np.linalg.matrix_power(step, len(towns))
    return "yes" if ways[towns.index(fields["start"]), towns.index(fields["end"])] else "no"


def _order_tasks(fields: Fields) -> str:
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for a, word, b in re.findall(r"(\w) (before|after) (\w)", fields["rules"]):
        sorter.add(*((b, a) if word == "before" else (a, b)))
    sorter.prepare()
    order = []
    while sorter.is_active():
        (ready,) = sorter.get_ready()  # one at a time: no other order keeps the rules
        order.append(ready)
        sorter.done(ready)
    return " ".join(order)


def _count_groups(fields: Fields) -> str:
    groups = [{name} for name in fields["people"].split()]
    for pair in fields["pairs"].split(", "):
        joined = [group for group in groups if group & set(pair.split("-"))]
        groups = [group for group in groups if group not in joined] + [set().union(*joined)]
    return str(len(groups))


SOLVERS: dict[str, Callable[[Fields], str]] = {
    "linear_equation": _linear_equation,
    "substitute": lambda f: str(value(f["expression"], x=f["x"])),
    "two_unknowns": _two_unknowns,
    "larger_root": _root,
    "compose_functions": _compose,
    **dict.fromkeys(("code_assign", "code_branch", "code_loop", "code_list", "code_text", "code_function"), _run),
    "grid_cell": lambda f: str(_table(f)[f["row"] - 1, f["column"] - 1]),
    "grid_sum": _grid_sum,
    "grid_walk": _grid_walk,
    "grid_neighbours": _grid_neighbours,
    "grid_path": _grid_path,
    "count_neighbours": lambda f: str(Counter(re.findall(r"\w+", f["pairs"]))[f["name"]]),
    "reachable": _reachable,
    "fewest_roads": lambda f: _shortest(f["roads"], f["start"], f["end"]),
    "shortest_route": lambda f: _shortest(f["roads"], f["start"], f["end"]),
    "order_tasks": _order_tasks,
    "count_groups": _count_groups,
}


@pytest.mark.parametrize("name", SOLVERS)
def test_answers_are_right(name: str) -> None:
    rng = Rng(99)
    for level in LEVELS:
        for _ in range(60):
            fields, answer = REGISTRY[name].draw(rng, level)
            assert answer == SOLVERS[name](fields), (level, fields)


def test_expanded_brackets_are_the_product_in_its_only_form() -> None:
    rng, x = Rng(99), np.arange(-5, 6)
    term = r"\d*x(\^[23])?"
    for level, _ in itertools.product(LEVELS, range(60)):
        fields, answer = REGISTRY["expand_brackets"].draw(rng, level)
        assert (value(answer, x=x) == value(fields["product"], x=x)).all(), fields
        assert re.fullmatch(rf"-?{term}( [+-] {term})*( [+-] \d+)?", answer)
        powers = [int(power or 1) for power in re.findall(r"x(?:\^(\d))?", answer)]
        assert powers == sorted(set(powers), reverse=True)
        assert not re.search(r"\b[01]x| [+-] 0|\^1", answer)


def test_no_family_of_these_groups_is_left_unchecked() -> None:
    assert {name for name, fam in REGISTRY.items() if fam.group in GROUPS} == {*SOLVERS, "expand_brackets"}
