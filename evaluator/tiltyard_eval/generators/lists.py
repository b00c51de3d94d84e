"""Families about lists of words."""

from __future__ import annotations

from tiltyard_eval.generators.core import Draw, Rng, family
from tiltyard_eval.generators.words import words

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


@family(
    "count_items",
    title="Counting items",
    group="counting",
    phrasings=(
        "How many words are in this list: {list}?",
        "Count the words: {list}",
        "Say how many items there are: {list}",
        "The list {list} has how many entries?",
    ),
)
def count_items(rng: Rng, level: int) -> Draw:
    """One to ten words."""
    chosen = words(rng, rng.between(max(1, level - 1), 2 * level + 1))
    return {"list": " ".join(chosen)}, str(len(chosen))


@family(
    "count_word",
    title="Counting a word",
    group="counting",
    phrasings=(
        'How often is "{word}" in: {list}?',
        'Count the word "{word}" in {list}.',
        'In the list {list}, how many times does "{word}" stand?',
        'Number of times "{word}" appears: {list}',
    ),
)
def count_word(rng: Rng, level: int) -> Draw:
    """How often one of two or three words occurs in a list of level + 2."""
    chosen = words(rng, 2 if level < 4 else 3)
    sequence = [rng.pick(chosen) for _ in range(level + 2)]
    return {"word": chosen[0], "list": " ".join(sequence)}, str(sequence.count(chosen[0]))


@family(
    "sort_words",
    title="Sorting words",
    group="words",
    phrasings=(
        "Sort by alphabet: {list}",
        "Put the words {list} in alphabetical order.",
        "Arrange from a to z: {list}",
        "Order these words as in a dictionary: {list}",
    ),
)
def sort_words(rng: Rng, level: int) -> Draw:
    """Two to five different words, at most 32 letters in all."""
    chosen = words(rng, (2, 2, 3, 4, 5)[level - 1])
    if level == 1:  # first letters differ, so that one comparison decides
        while chosen[0][0] == chosen[1][0]:
            chosen = words(rng, 2)
    return {"list": " ".join(chosen)}, " ".join(sorted(chosen))


@family(
    "first_in_alphabet",
    title="First word by alphabet",
    group="words",
    phrasings=(
        "Which word comes first in the alphabet: {list}?",
        "Pick the word that a dictionary lists first: {list}",
        "Of {list}, which is first from a to z?",
        "Find the alphabetically first word: {list}",
    ),
)
def first_in_alphabet(rng: Rng, level: int) -> Draw:
    """The alphabetically first of level + 1 words."""
    chosen = words(rng, level + 1)
    return {"list": " ".join(chosen)}, min(chosen)


@family(
    "last_in_alphabet",
    title="Last word by alphabet",
    group="words",
    phrasings=(
        "Which word comes last in the alphabet: {list}?",
        "Pick the word that a dictionary lists last: {list}",
        "Of {list}, which is last from a to z?",
        "Find the alphabetically last word: {list}",
    ),
)
def last_in_alphabet(rng: Rng, level: int) -> Draw:
    """The alphabetically last of level + 1 words."""
    chosen = words(rng, level + 1)
    return {"list": " ".join(chosen)}, max(chosen)


@family(
    "membership",
    title="Membership",
    group="lists",
    phrasings=(
        'Is "{word}" in the list {list}?',
        'Does the list {list} have "{word}"? Say yes or no.',
        '{list}: does "{word}" stand there, yes or no?',
        'Look for "{word}" in: {list}. Found, yes or no?',
    ),
)
def membership(rng: Rng, level: int) -> Draw:
    """Yes or no, each in half of the questions."""
    chosen = words(rng, level + 2)
    present = rng.chance(0.5)
    word = rng.pick(chosen[1:]) if present else chosen[0]
    return {"word": word, "list": " ".join(chosen[1:])}, "yes" if present else "no"


@family(
    "item_at",
    title="Item at a position",
    group="lists",
    phrasings=(
        "Which is the {nth} word of {list}?",
        "Give word {k} of the list: {list}",
        "In the list {list}, what is number {k}?",
        "Read {list} and name the {nth} item.",
    ),
)
def item_at(rng: Rng, level: int) -> Draw:
    """One of level + 1 words by its position."""
    chosen = words(rng, level + 1)
    k = rng.below(len(chosen))
    return {"nth": _ORDINALS[k], "k": k + 1, "list": " ".join(chosen)}, chosen[k]


@family(
    "reverse_list",
    title="Reversing a list",
    group="lists",
    phrasings=(
        "Reverse the list: {list}",
        "Write the words {list} in reverse order.",
        "Give {list} from last to first.",
        "Turn this list around: {list}",
    ),
)
def reverse_list(rng: Rng, level: int) -> Draw:
    """Two to five words, last first."""
    chosen = words(rng, (2, 2, 3, 4, 5)[level - 1])
    return {"list": " ".join(chosen)}, " ".join(reversed(chosen))


@family(
    "remove_duplicates",
    title="Removing duplicates",
    group="lists",
    phrasings=(
        "Remove the duplicates: {list}",
        "Write each word of {list} only once.",
        "Keep the first of every repeated word: {list}",
        "Drop words that were seen before: {list}",
    ),
)
def remove_duplicates(rng: Rng, level: int) -> Draw:
    """A list with one to three repeats; the first occurrences stay, in order."""
    chosen = words(rng, (2, 2, 3, 3, 4)[level - 1])
    repeats = [rng.pick(chosen) for _ in range(1 + level // 2)]
    sequence = rng.shuffled(chosen + repeats)
    return {"list": " ".join(sequence)}, " ".join(dict.fromkeys(sequence))


@family(
    "drop_word",
    title="Leaving out a word",
    group="lists",
    phrasings=(
        'Write {list} without "{word}".',
        'Remove "{word}" from the list: {list}',
        'Leave out "{word}": {list}',
        'What remains of {list} when "{word}" goes?',
    ),
)
def drop_word(rng: Rng, level: int) -> Draw:
    """A list of words without one of them."""
    chosen = words(rng, (2, 3, 3, 4, 5)[level - 1])
    word = rng.pick(chosen)
    return {"word": word, "list": " ".join(chosen)}, " ".join(w for w in chosen if w != word)
