"""Families of reading comprehension: a short generated text and a question that it answers.

Facts that have to be put together over several sentences go back to bAbI (Weston et al. 2015, arXiv 1502.05698).
"""

from __future__ import annotations

from itertools import pairwise

from tiltyard_eval.generators.core import Draw, Rng, family
from tiltyard_eval.generators.words import NAMES, THINGS

_TOWNS = ("Arden", "Belmar", "Corvin", "Dunley", "Elmont", "Farnby", "Garth", "Hexham", "Ilford", "Kelso")
_JOBS = ("baker", "dentist", "farmer", "nurse", "painter", "pilot", "singer", "tailor", "teacher", "weaver")
_PETS = ("cat", "dog", "duck", "goat", "hamster", "horse", "parrot", "rabbit", "snake", "turtle")
_ROOMS = ("attic", "bathroom", "cellar", "garage", "garden", "hall", "kitchen", "office")
_EVENTS = (
    *("concert", "dance", "dinner", "film", "game", "lesson"),
    *("lunch", "meeting", "party", "race", "speech", "tour"),
)
_ORDERS = (
    "The {a} was before the {b}.",
    "The {b} was after the {a}.",
    "After the {a} came the {b}.",
    "Before the {b} came the {a}.",
)

# What a profile says: the sentence about it, the words that point to a person by it, and the question for it.
_ASPECTS = {
    "town": ("lives in {}.", "who lives in {}", "In which town does {} live?"),
    "job": ("works as a {}.", "who works as a {}", "What is the job of {}?"),
    "pet": ("has a {}.", "with the {}", "Which animal does {} have?"),
}


@family(
    "read_profiles",
    title="Reading about people",
    group="reading comprehension",
    extended=True,
    phrasings=(
        "{text} {question} Write one word.",
        "Read the text and answer in one word. {text} Question: {question}",
        "{text}\n{question} Answer in one word.",
        "Text: {text}\nTask: answer in one word. {question}",
    ),
)
def read_profiles(rng: Rng, level: int) -> Draw:
    """Two to five people with town, job and pet. From level 2 the person asked about is named by another of these."""
    people = rng.sample(NAMES, (2, 2, 3, 4, 5)[level - 1])
    facts = {
        "town": rng.sample(_TOWNS, len(people)),
        "job": rng.sample(_JOBS, len(people)),
        "pet": rng.sample(_PETS, len(people)),
    }
    sentences = []
    for index, person in enumerate(people):
        for number, aspect in enumerate(rng.shuffled(tuple(_ASPECTS))):
            sentences.append(
                f"{'They' if number and level > 3 else person} {_ASPECTS[aspect][0].format(facts[aspect][index])}"
            )
    if level == 3:
        sentences = rng.shuffled(sentences)
    sentences = [text.replace("They lives", "They live").replace("They works", "They work") for text in sentences]
    sentences = [text.replace("They has", "They have") for text in sentences]
    index = rng.below(len(people))
    known, asked = rng.sample(tuple(_ASPECTS), 2)
    whom = people[index] if level == 1 else "the person " + _ASPECTS[known][1].format(facts[known][index])
    return {"text": " ".join(sentences), "question": _ASPECTS[asked][2].format(whom)}, facts[asked][index]


@family(
    "read_places",
    title="Reading about places",
    group="reading comprehension",
    extended=True,
    phrasings=(
        "{text} Where is the {thing} now? Answer in one word.",
        "{text} In which room is the {thing} at the end? Write one word.",
        "Read: {text} Name in one word the room that the {thing} is in.",
        "Story: {text}\nThe {thing} has ended up in which room? Answer with one word.",
    ),
)
def read_places(rng: Rng, level: int) -> Draw:
    """People walk through a house, take a thing and drop it; the thing goes where its bearer goes."""
    people = rng.sample(NAMES, (1, 1, 2, 2, 3)[level - 1])
    rooms = rng.sample(_ROOMS, (3, 4, 4, 5, 6)[level - 1])
    things = [thing.removesuffix("s") for thing in rng.sample(THINGS, (1, 1, 1, 2, 2)[level - 1])]
    place = dict.fromkeys(people, "")
    lies = {thing: rng.pick(rooms) for thing in things}
    bearer: dict[str, str | None] = dict.fromkeys(things)
    text = [f"The {thing} lies in the {room}." for thing, room in lies.items()]
    for _ in range((3, 4, 6, 8, 10)[level - 1]):
        person = rng.pick(people)
        held = [thing for thing in things if bearer[thing] == person]
        near = [thing for thing in things if bearer[thing] is None and lies[thing] == place[person]]
        if near and not held:
            bearer[near[0]] = person
            text.append(f"{person} takes the {near[0]}.")
        elif held and rng.chance(0.25):
            bearer[held[0]] = None
            text.append(f"{person} drops the {held[0]}.")
        else:
            free = [lies[thing] for thing in things if bearer[thing] is None]
            goals = free if free and not held and rng.chance(0.6) else rooms
            room = rng.pick(
                [goal for goal in goals if goal != place[person]] or [r for r in rooms if r != place[person]]
            )
            place[person] = room
            for thing in held:
                lies[thing] = room
            text.append(f"{person} goes to the {room}.")
    thing = rng.pick(things)
    return {"text": " ".join(text), "thing": thing}, lies[thing]


@family(
    "read_order",
    title="Reading about the order of events",
    group="reading comprehension",
    extended=True,
    phrasings=(
        "{text} What was {which}? Answer in one word.",
        "{text} Name in one word what came {which}.",
        "Read: {text} Write one word for what took place {which}.",
        "A day in short: {text}\nIn one word, which event was the {which} of all?",
    ),
)
def read_order(rng: Rng, level: int) -> Draw:
    """Events told with "before" and "after", not in their order; which came first, or last."""
    events = rng.sample(_EVENTS, (2, 3, 4, 5, 6)[level - 1])
    text = [rng.pick(_ORDERS).format(a=earlier, b=later) for earlier, later in rng.shuffled(list(pairwise(events)))]
    which = rng.pick(("first", "last"))
    return {"text": " ".join(text), "which": which}, events[0] if which == "first" else events[-1]


@family(
    "read_amounts",
    title="Reading about amounts",
    group="reading comprehension",
    extended=True,
    phrasings=(
        "{text} {question} Write only the number.",
        "Read, calculate, and write only the number. {text} {question}",
        "{text}\n{question} Give the number.",
        "Notes from the market: {text}\nQuestion, to be answered with a number alone: {question}",
    ),
)
def read_amounts(rng: Rng, level: int) -> Draw:
    """Prices and what people buy; what somebody pays, or from level 4 how much more one pays than another."""
    goods = rng.sample([thing for thing in THINGS if thing != "coins"], (2, 2, 3, 3, 4)[level - 1])
    prices = {thing: rng.between(2, (5, 9, 9, 12, 20)[level - 1]) for thing in goods}
    people = rng.sample(NAMES, (1, 2, 2, 3, 3)[level - 1])
    text = [f"The {thing} cost {price} coins each." for thing, price in prices.items()]
    pays = dict.fromkeys(people, 0)
    for person in people:
        bought = rng.sample(goods, (1, 1, 2, 2, 3)[level - 1])
        parts = []
        for thing in bought:
            count = rng.between(2, (5, 5, 6, 9, 9)[level - 1])
            pays[person] += count * prices[thing]
            parts.append(f"{count} {thing}")
        text.append(f"{person} buys {' and '.join(parts)}.")
    first = rng.pick(people)
    if level < 4:
        return {"text": " ".join(text), "question": f"How many coins does {first} pay?"}, str(pays[first])
    rich, poor = sorted(rng.sample(people, 2), key=lambda name: -pays[name])
    question = f"How many coins more than {poor} does {rich} pay?"
    return {"text": " ".join(text), "question": question}, str(pays[rich] - pays[poor])


@family(
    "read_except",
    title="Reading about exceptions",
    group="reading comprehension",
    extended=True,
    phrasings=(
        "{text} How many of them have {thing}?",
        "{text} Count the people who have {thing}.",
        "Read: {text} What is the number of people with {thing}?",
        "List of owners. {text}\nTo how many people do {thing} belong?",
    ),
)
def read_except(rng: Rng, level: int) -> Draw:
    """Sentences about all, all but one, nobody, both or single people; how many own a thing."""
    people = rng.sample(NAMES, level + 3)
    everybody = f"{', '.join(people[:-1])} and {people[-1]}"
    owners: dict[str, int] = {}
    text = [f"{everybody} are neighbours."]
    for thing in rng.sample(THINGS, (1, 2, 2, 3, 4)[level - 1]):
        left = rng.shuffled(people)
        kind = rng.pick(
            ("but", "but two", "only", "both", "everybody", "nobody") if level > 1 else ("but", "only", "both")
        )
        owners[thing], sentence = {
            "but": (len(people) - 1, f"All but {left[0]} have {thing}."),
            "but two": (len(people) - 2, f"All except {left[0]} and {left[1]} have {thing}."),
            "only": (1, f"Only {left[0]} has {thing}."),
            "both": (2, f"{left[0]} and {left[1]} have {thing}, the others do not."),
            "everybody": (len(people), f"Everybody has {thing}."),
            "nobody": (0, f"Nobody has {thing}."),
        }[kind]
        text.append(sentence)
    thing = rng.pick(tuple(owners))
    return {"text": " ".join(text), "thing": thing}, str(owners[thing])
