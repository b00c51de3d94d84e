"""Families about grids: tables, walks, maps with walls. Rows count from the top, columns from the left."""

from __future__ import annotations

from collections import deque

from tiltyard_eval.generators.core import Draw, Rng, family

Cell = tuple[int, int]

_MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def _table(rng: Rng, level: int) -> list[list[int]]:
    """Rows of numbers: two by two below 10 at level 1, five by five below 100 at level 5."""
    rows, columns = ((2, 2), (3, 3), (3, 4), (4, 4), (5, 5))[level - 1]
    return [[rng.between(1, 9 if level < 4 else 99) for _ in range(columns)] for _ in range(rows)]


def _lines(table: list[list[int]]) -> str:
    return "\n".join(" ".join(map(str, row)) for row in table)


@family(
    "grid_cell",
    title="Numbers in a table",
    group="grids",
    extended=True,
    phrasings=(
        "Which number stands in row {row}, column {column}?\n{grid}",
        "{grid}\nName the number in row {row} and column {column} of this table.",
        "Read the table.\n{grid}\nGo to row {row}, then to column {column}. Which number is there?",
        "In this grid, what is the entry of column {column} in row {row}?\n{grid}",
    ),
)
def grid_cell(rng: Rng, level: int) -> Draw:
    """One number of a table by row and column, counted from 1."""
    table = _table(rng, level)
    row, column = rng.below(len(table)), rng.below(len(table[0]))
    return {"grid": _lines(table), "row": row + 1, "column": column + 1}, str(table[row][column])


@family(
    "grid_sum",
    title="Sums in a table",
    group="grids",
    extended=True,
    phrasings=(
        "What is the sum of {line} {n}?\n{grid}",
        "{grid}\nAdd up the numbers in {line} {n} of this table.",
        "Take {line} {n} of the table and give the total of its numbers.\n{grid}",
        "The table is\n{grid}\nWhat do the numbers in {line} {n} add up to?",
    ),
)
def grid_sum(rng: Rng, level: int) -> Draw:
    """The sum of a row or of a column."""
    table = _table(rng, level)
    line = rng.pick(("row", "column"))
    n = rng.below(len(table) if line == "row" else len(table[0]))
    numbers = table[n] if line == "row" else [row[n] for row in table]
    return {"grid": _lines(table), "line": line, "n": n + 1}, str(sum(numbers))


@family(
    "grid_walk",
    title="Walks on a grid",
    group="grids",
    extended=True,
    phrasings=(
        "You stand in row {row}, column {column} of a grid and go {moves}. "
        "Give your row and column as two numbers with a space between.",
        "Start: row {row}, column {column}. Steps: {moves}. "
        "Write row and column of the end as two numbers with a space between.",
        "A piece in row {row} and column {column} moves {moves}. "
        "Write the numbers of its new row and column with a space between.",
        "A robot at row {row}, column {column} drives {moves}. Where is it? "
        "Answer with two numbers, row and column, with a space between.",
    ),
)
def grid_walk(rng: Rng, level: int) -> Draw:
    """Where a walk of one to seven legs ends, as two numbers: row and column. It never leaves the grid."""
    row, column = start = rng.between(3, 6), rng.between(3, 6)
    legs: list[str] = []
    while len(legs) < (1, 2, 3, 5, 7)[level - 1]:
        name = rng.pick(tuple(_MOVES))
        steps = rng.between(1, (2, 3, 3, 4, 5)[level - 1])
        down, right = _MOVES[name]
        if min(row + down * steps, column + right * steps) < 1:
            continue
        row, column = row + down * steps, column + right * steps
        legs.append(f"{name} {steps}")
    return {"row": start[0], "column": start[1], "moves": ", ".join(legs)}, f"{row} {column}"


@family(
    "grid_neighbours",
    title="Neighbours on a grid",
    group="grids",
    extended=True,
    phrasings=(
        "How many of the up to eight neighbours of row {row}, column {column} are x?\n{grid}",
        "{grid}\nCount the x in the cells around row {row}, column {column}, also diagonally.",
        "A map of mines, marked x.\n{grid}\nHow many mines touch row {row}, column {column}, corners included?",
        "Look at the cells that touch row {row}, column {column}, even at a corner. How many hold x?\n{grid}",
    ),
)
def grid_neighbours(rng: Rng, level: int) -> Draw:
    """How many of the cells around one cell are marked; the cell itself does not count."""
    size = level + 2
    marked = [[rng.chance(0.45) for _ in range(size)] for _ in range(size)]
    row, column = rng.below(size), rng.below(size)
    near = [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    count = sum(marked[r][c] for r, c in near if 0 <= r < size and 0 <= c < size)
    grid = "\n".join(" ".join("x" if cell else "o" for cell in line) for line in marked)
    return {"grid": grid, "row": row + 1, "column": column + 1}, str(count)


@family(
    "grid_path",
    title="Shortest ways on a map",
    group="grids",
    extended=True,
    phrasings=(
        "How many steps (up, down, left, right) is the shortest way from S to E? Walls are #.\n{grid}",
        "{grid}\nS is the start, E the end, # a wall. Give the number of steps of the shortest way without diagonals.",
        "A maze, in which # cannot be entered:\n{grid}\nCount the fewest moves up, down, left or right from S to E.",
        "Find the length in steps of the shortest path from S to E around the walls #, never diagonally.\n{grid}",
    ),
)
def grid_path(rng: Rng, level: int) -> Draw:
    """The number of steps from S to E, which are apart by at least two."""
    size = level + 2
    while True:
        walls = [[rng.chance(0.3) for _ in range(size)] for _ in range(size)]
        start, end = (rng.below(size), rng.below(size)), (rng.below(size), rng.below(size))
        walls[start[0]][start[1]] = walls[end[0]][end[1]] = False
        steps = _steps(walls, start, end)
        if steps is not None and steps >= 2:
            break
    letters = {start: "S", end: "E"}
    rows = [
        " ".join(letters.get((r, c), "#" if wall else ".") for c, wall in enumerate(row)) for r, row in enumerate(walls)
    ]
    return {"grid": "\n".join(rows)}, str(steps)


def _steps(walls: list[list[bool]], start: Cell, end: Cell) -> int | None:
    """Breadth-first search; None when there is no way."""
    distance = {start: 0}
    queue = deque([start])
    while queue:
        row, column = cell = queue.popleft()
        if cell == end:
            return distance[cell]
        for down, right in _MOVES.values():
            r, c = row + down, column + right
            if 0 <= r < len(walls) and 0 <= c < len(walls) and not walls[r][c] and (r, c) not in distance:
                distance[r, c] = distance[cell] + 1
                queue.append((r, c))
    return None
