"""Families of following instructions that determine the answer: shapes, steps, conditions.

Those that leave a choice are in ``constraints``.
"""

from __future__ import annotations

from tiltyard_eval.generators.core import Draw, Rng, family
from tiltyard_eval.generators.words import WORDS, words

GROUP = "instruction following"
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_JOINERS = (("commas", ","), ("hyphens", "-"), ("slashes", "/"), ("plus signs", "+"))

_BRACKETS = (
    ("all together in one pair of round brackets", "round"),
    ("all together in one pair of square brackets", "square"),
)


@family(
    "follow_format",
    title="Following a format",
    group=GROUP,
    extended=True,
    phrasings=(
        "Write {list} {format}.",
        "Copy the words {list} {format}.",
        "Take {list} and write them {format}.",
        "Here are words: {list}. Output them {format}. Nothing else.",
    ),
)
def follow_format(rng: Rng, level: int) -> Draw:
    """Two to five words in another shape: one demand at level 1, four at level 5."""
    chosen = words(rng, (2, 3, 3, 4, 5)[level - 1])
    shown = " ".join(chosen)
    name, joiner = rng.pick(_JOINERS)
    demands = [(f"joined by {name} without spaces", "join")]
    if level >= 2:
        demands.append(("in capital letters", "upper"))
    if level >= 3:
        demands.append(rng.pick((("in reverse order", "reverse"), ("in alphabetical order", "sort"))))
    if level >= 4:
        demands.append(rng.pick(_BRACKETS))
    kinds = {kind for _, kind in demands}
    if "reverse" in kinds:
        chosen.reverse()
    if "sort" in kinds:
        chosen.sort()
    text = joiner.join(chosen)
    if "upper" in kinds:
        text = text.upper()
    if "round" in kinds:
        text = f"({text})"
    if "square" in kinds:
        text = f"[{text}]"
    texts = [demand for demand, _ in rng.shuffled(demands)]
    return {"list": shown, "format": texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]}, text


@family(
    "follow_steps",
    title="Following steps",
    group=GROUP,
    extended=True,
    phrasings=(
        "Start with the words {list}. {steps} Write the words that you have then, with spaces between them.",
        "Words: {list}. Do this in order. {steps} What are the words now, separated by spaces?",
        "Take the list {list}. {steps} Give the final list with spaces between the words.",
        "{list}\nChange this list step by step. {steps} Write down the result, separated by spaces.",
    ),
)
def follow_steps(rng: Rng, level: int) -> Draw:
    """A list of words that one to five steps change; they never undo each other to the list as it was."""
    while True:
        chosen = words(rng, level + 3)
        before, spare = chosen[: (2, 3, 3, 4, 4)[level - 1]], chosen[(2, 3, 3, 4, 4)[level - 1] :]
        steps, after = _steps(rng, level, before, spare)
        if after != before:
            return {"list": " ".join(before), "steps": " ".join(steps)}, " ".join(after)


def _steps(rng: Rng, count: int, before: list[str], spare: list[str]) -> tuple[list[str], list[str]]:
    """Steps in words, and what they make of the words `before`; words that they add are taken off `spare`."""
    current = list(before)
    steps = []
    for _ in range(count):
        kind = rng.pick(("swap", "turn", "drop", "add", "front", "double"))
        if kind == "turn":
            current.reverse()
            steps.append("Reverse the order.")
        elif kind == "drop" and len(current) > 2:
            steps.append(f"Remove {'the first' if (first := rng.chance(0.5)) else 'the last'} word.")
            current = current[1:] if first else current[:-1]
        elif kind == "add" and spare and len(current) < 6:
            current.append(spare.pop())
            steps.append(f"Add {current[-1]} at the end.")
        elif kind == "front" and spare and len(current) < 6:
            current.insert(0, spare.pop())
            steps.append(f"Put {current[0]} at the front.")
        elif kind == "double" and len(current) < 6 and current[-2:-1] != current[-1:]:
            current.append(current[-1])
            steps.append("Repeat the last word.")
        else:
            current[0], current[-1] = current[-1], current[0]
            steps.append("Swap the first and the last word.")
    return steps, current


@family(
    "follow_condition",
    title="Following conditions",
    group=GROUP,
    extended=True,
    phrasings=(
        "Words: {list}. {rules}",
        "{list}\n{rules}",
        "Look at the words {list}. {rules} Write nothing else.",
        "Here is a list: {list}. Do what applies. {rules}",
    ),
)
def follow_condition(rng: Rng, level: int) -> Draw:
    """What to write depends on the words: one condition at level 1, three in a row at level 5."""
    chosen = words(rng, level + 2)
    todo = {
        "write its first word": chosen[0],
        "write its last word": chosen[-1],
        "write its second word": chosen[1],
        "write its first word in capitals": chosen[0].upper(),
        "write its last word in capitals": chosen[-1].upper(),
        "write its first word twice with a space between": f"{chosen[0]} {chosen[0]}",
    }
    actions = rng.sample(tuple(todo), 2 if level < 3 else 3 if level < 5 else 4)
    answer, texts = "", []
    for number, action in enumerate(actions[:-1]):
        condition, holds = _condition(rng, chosen)
        texts.append(f"{'If' if not number else 'Otherwise, if'} {condition}, {action}.")
        answer = answer or (todo[action] if holds else "")
    texts.append(f"Otherwise {actions[-1]}.")
    return {"list": " ".join(chosen), "rules": " ".join(texts)}, answer or todo[actions[-1]]


def _condition(rng: Rng, chosen: list[str]) -> tuple[str, bool]:
    kind = rng.below(3)
    if kind == 0:
        word = rng.pick(chosen) if rng.chance(0.4) else rng.pick(WORDS)
        return f'the list has the word "{word}"', word in chosen
    if kind == 1:
        letter = rng.pick(rng.pick(chosen)) if rng.chance(0.3) else rng.pick("abcdefgiklmnoprstuw")
        place, word = rng.pick((("first", chosen[0]), ("last", chosen[-1])))
        return f'the {place} word has the letter "{letter}"', letter in word
    length = rng.between(3, 5)
    return f"the first word has more than {_NUMBER_WORDS[length]} letters", len(chosen[0]) > length
