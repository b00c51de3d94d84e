"""Families about the letters of a string."""

from __future__ import annotations

from tiltyard_eval.generators.core import Draw, Rng, family
from tiltyard_eval.generators.words import pseudo_word, words

_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_NEXT_LETTER = dict(zip(_ALPHABET, _ALPHABET[1:] + "a", strict=True))


@family(
    "reverse_word",
    title="Reversing a word",
    group="strings",
    phrasings=(
        'Reverse the word "{word}".',
        'Write "{word}" backwards.',
        'Spell "{word}" from the end to the start.',
        'What is "{word}" read from right to left?',
    ),
)
def reverse_word(rng: Rng, level: int) -> Draw:
    """A string of level + 2 letters."""
    word = pseudo_word(rng, level + 2)
    return {"word": word}, word[::-1]


@family(
    "letter_at",
    title="Letter at a position",
    group="strings",
    phrasings=(
        'What is letter {k} of "{word}"?',
        'Give the letter at position {k} in "{word}".',
        'In "{word}", which letter is number {k}?',
        'Name letter number {k} of the word "{word}".',
    ),
)
def letter_at(rng: Rng, level: int) -> Draw:
    """One letter of a string of level + 2 letters, counted from 1."""
    word = pseudo_word(rng, level + 2)
    k = rng.below(len(word))
    return {"word": word, "k": k + 1}, word[k]


@family(
    "last_letters",
    title="Last letters",
    group="strings",
    phrasings=(
        "Join the last letters of: {list}",
        "Take the last letter of each word in {list} and write them together.",
        "What do the final letters of {list} spell?",
        "Write only the last letter of every word: {list}",
    ),
)
def last_letters(rng: Rng, level: int) -> Draw:
    """The last letters of one to five words, written together."""
    chosen = words(rng, level)
    return {"list": " ".join(chosen)}, "".join(word[-1] for word in chosen)


@family(
    "first_letters",
    title="First letters",
    group="strings",
    phrasings=(
        "Join the first letters of: {list}",
        "Take the first letter of each word in {list} and write them together.",
        "What do the initial letters of {list} spell?",
        "Write only the first letter of every word: {list}",
    ),
)
def first_letters(rng: Rng, level: int) -> Draw:
    """The first letters of two to six words, written together."""
    chosen = words(rng, level + 1)
    return {"list": " ".join(chosen)}, "".join(word[0] for word in chosen)


@family(
    "count_letter",
    title="Counting a letter",
    group="counting",
    phrasings=(
        'How many "{letter}" are in "{word}"?',
        'Count the letter "{letter}" in "{word}".',
        'How often does "{word}" contain "{letter}"?',
        'Number of times "{letter}" occurs in "{word}"?',
    ),
)
def count_letter(rng: Rng, level: int) -> Draw:
    """How often a letter stands in a string over three letters."""
    letters = rng.sample(_ALPHABET, 3)
    word = "".join(rng.pick(letters) for _ in range(level + 2))
    return {"letter": letters[0], "word": word}, str(word.count(letters[0]))


@family(
    "word_length",
    title="Length of a word",
    group="counting",
    phrasings=(
        'How many letters has "{word}"?',
        'Count the letters of "{word}".',
        'How long is the word "{word}"?',
        'Give the length of "{word}".',
    ),
)
def word_length(rng: Rng, level: int) -> Draw:
    """A string of up to 2 * level + 2 letters."""
    word = pseudo_word(rng, rng.between(level + 1, 2 * level + 2))
    return {"word": word}, str(len(word))


@family(
    "replace_letter",
    title="Replacing a letter",
    group="strings",
    phrasings=(
        'Replace "{old}" by "{new}" in "{word}".',
        'Write "{word}" with "{new}" for every "{old}".',
        'Change each "{old}" in "{word}" to "{new}".',
        'In "{word}", put "{new}" where "{old}" stands.',
    ),
)
def replace_letter(rng: Rng, level: int) -> Draw:
    """Every occurrence of a letter becomes another letter."""
    word = pseudo_word(rng, level + 2)
    old, new = rng.pick(word), rng.pick(_ALPHABET)
    return {"word": word, "old": old, "new": new}, word.replace(old, new)


@family(
    "remove_letter",
    title="Removing a letter",
    group="strings",
    phrasings=(
        'Remove every "{letter}" from "{word}".',
        'Write "{word}" without "{letter}".',
        'Delete "{letter}" in "{word}".',
        'What is left of "{word}" when each "{letter}" goes?',
    ),
)
def remove_letter(rng: Rng, level: int) -> Draw:
    """A string without one of its letters."""
    word = pseudo_word(rng, level + 2)
    letter = rng.pick(word)
    return {"word": word, "letter": letter}, word.replace(letter, "")


@family(
    "join_words",
    title="Joining words",
    group="strings",
    phrasings=(
        "Join into one word: {list}",
        "Write {list} without spaces.",
        "Glue these together: {list}",
        "Put {list} together as one string.",
    ),
)
def join_words(rng: Rng, level: int) -> Draw:
    """Two to four words written without spaces."""
    chosen = words(rng, (2, 2, 3, 3, 4)[level - 1])
    return {"list": " ".join(chosen)}, "".join(chosen)


@family(
    "shift_letters",
    title="Shifting letters",
    group="strings",
    phrasings=(
        'Shift each letter of "{word}" by one.',
        'Replace every letter of "{word}" by the next in the alphabet.',
        'Move the letters of "{word}" one step forward, z becomes a.',
        'Encode "{word}": a becomes b, b becomes c and so on.',
    ),
)
def shift_letters(rng: Rng, level: int) -> Draw:
    """Caesar's cipher with a shift of one, on one to five letters."""
    word = "".join(rng.pick(_ALPHABET) for _ in range(level))
    return {"word": word}, "".join(_NEXT_LETTER[letter] for letter in word)


@family(
    "repeat_string",
    title="Repeating a string",
    group="strings",
    phrasings=(
        'Write "{word}" {n} times without spaces.',
        'Repeat "{word}" {n} times.',
        'Copy "{word}" so that it stands {n} times in a row.',
        'Give {n} copies of "{word}" joined together.',
    ),
)
def repeat_string(rng: Rng, level: int) -> Draw:
    """A string of two to five letters, two to five times."""
    word = pseudo_word(rng, 2 + level // 2)
    n = rng.between(2, 2 + (level + 1) // 2)
    return {"word": word, "n": n}, word * n


@family(
    "double_letters",
    title="Doubling letters",
    group="strings",
    phrasings=(
        'Double each letter of "{word}".',
        'Write "{word}" with every letter twice.',
        'Say each letter of "{word}" two times.',
        'Turn "{word}" into a word with doubled letters.',
    ),
)
def double_letters(rng: Rng, level: int) -> Draw:
    """Each letter of a string of level + 1 letters twice."""
    word = pseudo_word(rng, level + 1)
    return {"word": word}, "".join(letter * 2 for letter in word)
