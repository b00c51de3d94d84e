"""Families about graphs: roads between towns, friends, tasks that wait for each other."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import pairwise

from tiltyard_eval.generators.core import Draw, Rng, family
from tiltyard_eval.generators.words import NAMES

Edge = tuple[str, str]

_LETTERS = "ABCDEFGHKLMNPRST"


def _towns(rng: Rng, count: int) -> list[str]:
    return rng.sample(_LETTERS, count)


def _edges(rng: Rng, nodes: Sequence[str], count: int) -> list[Edge]:
    """`count` different pairs of nodes, in random order and direction."""
    pairs = [(a, b) for i, a in enumerate(nodes) for b in nodes[i + 1 :]]
    return [(a, b) if rng.chance(0.5) else (b, a) for a, b in rng.sample(pairs, count)]


def _roads(edges: Sequence[Edge]) -> str:
    return ", ".join(f"{a}-{b}" for a, b in edges)


def _distances(edges: Sequence[Edge], lengths: Sequence[int], start: str) -> dict[str, int]:
    """Dijkstra's algorithm over roads in both directions: the length of the shortest way to each town in reach."""
    near: dict[str, list[tuple[str, int]]] = {}
    for (a, b), length in zip(edges, lengths, strict=True):
        near.setdefault(a, []).append((b, length))
        near.setdefault(b, []).append((a, length))
    found: dict[str, int] = {}
    heap = [(0, start)]
    while heap:
        distance, town = heapq.heappop(heap)
        if town not in found:
            found[town] = distance
            for other, length in near.get(town, []):
                heapq.heappush(heap, (distance + length, other))
    return found


@family(
    "count_neighbours",
    title="Neighbours in a network",
    group="graphs",
    extended=True,
    phrasings=(
        "Friends: {pairs}. How many friends has {name}?",
        "{pairs} are friends. Count the friends of {name}.",
        "Each of these pairs knows each other: {pairs}. How many people does {name} know?",
        "A network has the links {pairs}. With how many is {name} linked?",
    ),
)
def count_neighbours(rng: Rng, level: int) -> Draw:
    """How often one name stands among pairs of friends."""
    people = rng.sample(NAMES, level + 3)
    edges = _edges(rng, people, (3, 5, 8, 11, 14)[level - 1])
    name = rng.pick(people)
    return {"pairs": ", ".join(f"{a}-{b}" for a, b in edges), "name": name}, str(sum(name in edge for edge in edges))


@family(
    "reachable",
    title="Reaching a town",
    group="graphs",
    extended=True,
    phrasings=(
        "One-way roads: {roads}. Can one drive from {start} to {end}? Say yes or no.",
        "Each arrow is a one-way road: {roads}. Is there a way from {start} to {end}, yes or no?",
        "With only the one-way roads {roads}, does some route lead from {start} to {end}? Answer yes or no.",
        "yes or no: starting in {start} and following the arrows {roads}, one can get to {end}.",
    ),
)
def reachable(rng: Rng, level: int) -> Draw:
    """Whether arrows lead from one town to another; yes and no in about equal shares."""
    wanted = rng.chance(0.5)
    while True:
        towns = _towns(rng, level + 2)
        edges = _edges(rng, towns, (2, 3, 5, 6, 8)[level - 1])
        start, end = rng.sample(towns, 2)
        found = {start}
        for _ in towns:
            found |= {b for a, b in edges if a in found}
        # A road from start to end itself, or none at all from the start or to the end, would need no search.
        trivial = (start, end) in edges or all(a != start for a, _ in edges) or all(b != end for _, b in edges)
        if (end in found) == wanted and not (trivial and level > 1):
            roads = ", ".join(f"{a}>{b}" for a, b in edges)
            return {"roads": roads, "start": start, "end": end}, "yes" if wanted else "no"


@family(
    "fewest_roads",
    title="Fewest roads",
    group="graphs",
    extended=True,
    phrasings=(
        "Roads: {roads}. What is the smallest number of roads from {start} to {end}?",
        "Towns are joined by {roads}. How many roads does the shortest route from {start} to {end} use?",
        "A map shows {roads}. Going from {start} to {end}, how few roads are enough?",
        "Count the roads of the shortest route between {start} and {end}: {roads}",
    ),
)
def fewest_roads(rng: Rng, level: int) -> Draw:
    """The number of edges of a shortest path: one to three at level 1, then two to four."""
    wanted = rng.between(1, 3) if level == 1 else rng.between(2, 4)  # drawn first, because short ways are frequent
    while True:
        towns = _towns(rng, level + 3)
        edges = _edges(rng, towns, (3, 4, 6, 7, 9)[level - 1])
        start, end = rng.sample(towns, 2)
        if _distances(edges, [1] * len(edges), start).get(end) == wanted:
            return {"roads": _roads(edges), "start": start, "end": end}, str(wanted)


@family(
    "shortest_route",
    title="Shortest routes",
    group="graphs",
    extended=True,
    phrasings=(
        "Roads with their lengths: {roads}. How long is the shortest way from {start} to {end}?",
        "Lengths in km: {roads}. Give the length of the shortest route from {start} to {end}, only the number.",
        "{roads} are roads and their kilometers. How many kilometers is it at least from {start} to {end}?",
        "Find the smallest total length between {start} and {end} on these roads: {roads}",
    ),
)
def shortest_route(rng: Rng, level: int) -> Draw:
    """The length of a shortest path between two towns of a network with lengths."""
    while True:
        towns = _towns(rng, level + 2)
        edges = _edges(rng, towns, (3, 4, 6, 8, 10)[level - 1])
        lengths = [rng.between(1, (5, 9, 9, 15, 20)[level - 1]) for _ in edges]
        start, end = rng.sample(towns, 2)
        length = _distances(edges, lengths, start).get(end)
        if length is not None:
            roads = ", ".join(f"{a}-{b} {size}" for (a, b), size in zip(edges, lengths, strict=True))
            return {"roads": roads, "start": start, "end": end}, str(length)


@family(
    "order_tasks",
    title="Order of tasks",
    group="graphs",
    extended=True,
    phrasings=(
        "{rules}. In which order are the tasks done? Write their letters with spaces between them.",
        "Write the tasks, with spaces between them, in the only order that the rules allow: {rules}.",
        "{rules}. List all tasks from first to last, separated by spaces.",
        "Put the tasks in order so that every rule holds, as letters with spaces between: {rules}.",
    ),
)
def order_tasks(rng: Rng, level: int) -> Draw:
    """The one topological order of tasks: neighbours in the order are always ruled, some others as well."""
    tasks = _towns(rng, level + 2)
    rules = list(pairwise(tasks))
    apart = [(a, b) for i, a in enumerate(tasks) for b in tasks[i + 2 :]]
    rules += rng.sample(apart, min(len(apart), level - 1))
    texts = [f"{a} before {b}" if rng.chance(0.5) else f"{b} after {a}" for a, b in rng.shuffled(rules)]
    return {"rules": ", ".join(texts)}, " ".join(tasks)


@family(
    "count_groups",
    title="Groups of friends",
    group="graphs",
    extended=True,
    phrasings=(
        "People: {people}. Friends: {pairs}. Friends of friends are in one group, and "
        "someone without a friend is a group alone. How many groups are there?",
        "Among {people} these are linked: {pairs}. Someone without a link is a group alone. "
        "Into how many connected groups do they fall?",
        "{people} play. Whoever is linked, directly or through others, is in one team: {pairs}. "
        "Someone without a link is a team alone. How many teams?",
        "Count the separate networks among {people} when the links are {pairs}. "
        "Someone without a link counts as a network alone.",
    ),
)
def count_groups(rng: Rng, level: int) -> Draw:
    """The number of connected components; someone without a link is a group of one."""
    people = rng.sample(NAMES, level + 3)
    edges = _edges(rng, people, rng.between(1, level + 1))
    group = {name: name for name in people}
    for a, b in edges:
        old, new = group[a], group[b]
        group = {name: new if leader == old else leader for name, leader in group.items()}
    pairs = ", ".join(f"{a}-{b}" for a, b in edges)
    return {"people": " ".join(people), "pairs": pairs}, str(len(set(group.values())))
