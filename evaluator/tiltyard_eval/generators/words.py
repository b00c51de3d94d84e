"""Words, names and things that the families draw from, and pronounceable strings that no list can hold."""

from __future__ import annotations

from tiltyard_eval.generators.core import Rng


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORDS = _split(
    """
    ant arm axe bag ball band bat bear bed bee bell bird boat book boot bowl box boy bread brick bridge bus cake camel
    camp can cap car card cart cat chair cheese city clay clock cloud coat coin cow crab cup cut deer desk dish dog door
    dove drum duck dust eagle ear egg elk eye face fan farm fern fig fire fish flag floor flute fly fog foot fork fox
    frog gate girl glass glove goat gold grape grass green gum hand hat hawk hen hill hive home honey hook horn horse
    house ice ink iron ivy jam jar jet key king kite knee knife lake lamb lamp leaf leg lemon lid lily lime lion lock
    log map mask meal milk mill mint mole moon moss moth mouse mud mule nail neck nest net night nose nut oak oar oil
    olive onion orange otter oven owl owner paint pan paper park path peach pear pen pie pig pin pine pipe pit plane
    plant plate plum pond pool pot queen quilt rabbit rain rake rat ring river road robe rock roof root rope rose rug
    sail salt sand saw school sea seal seed shed sheep ship shoe shop silk sink skin sky snail snake snow soap sock
    song soup spoon star stone sugar sun swan table tail tape tent tiger toad toe tower town toy train tray tree truck
    tub tulip turtle van vase vest vine violin wagon wall wasp water wave web well whale wheat wheel wind window wing
    wolf wood wool worm yard yarn zebra zoo
    """
)

NAMES = _split("Ada Ben Cara Dan Eva Finn Gina Hugo Iris Jack Kim Leo Mia Ned Olga Paul Rosa Sam Tina Vera")

THINGS = _split("apples books cards coins cups eggs hats keys nuts pears pens shells stamps stones toys")

_CONSONANTS = "bcdfghjklmnpqrstvwz"
_VOWELS = "aeiou"


def pseudo_word(rng: Rng, length: int) -> str:
    """A pronounceable string of ``length`` lower-case letters, consonants and vowels in turn."""
    turn = rng.below(2)
    return "".join(rng.pick(_VOWELS if (i + turn) % 2 else _CONSONANTS) for i in range(length))


def words(rng: Rng, count: int) -> list[str]:
    """``count`` different words of the list, in random order."""
    chosen: list[str] = []
    while len(chosen) < count:
        word = rng.pick(WORDS)
        if word not in chosen:
            chosen.append(word)
    return chosen
