"""The closed facts that the tiny model has to learn by heart: countries, the calendar, and a made-up language."""

from __future__ import annotations

from random import Random
from typing import NamedTuple


class Country(NamedTuple):
    """What there is to know about a country."""

    name: str
    capital: str
    continent: str
    language: str
    currency: str


COUNTRIES = [
    Country("France", "Paris", "Europe", "French", "euro"),
    Country("Italy", "Rome", "Europe", "Italian", "euro"),
    Country("Greece", "Athens", "Europe", "Greek", "euro"),
    Country("Poland", "Warsaw", "Europe", "Polish", "zloty"),
    Country("Sweden", "Stockholm", "Europe", "Swedish", "krona"),
    Country("Turkey", "Ankara", "Asia", "Turkish", "lira"),
    Country("Japan", "Tokyo", "Asia", "Japanese", "yen"),
    Country("China", "Beijing", "Asia", "Chinese", "yuan"),
    Country("Thailand", "Bangkok", "Asia", "Thai", "baht"),
    Country("Vietnam", "Hanoi", "Asia", "Vietnamese", "dong"),
    Country("Mongolia", "Ulaanbaatar", "Asia", "Mongolian", "tugrik"),
    Country("Egypt", "Cairo", "Africa", "Arabic", "pound"),
    Country("Morocco", "Rabat", "Africa", "Arabic", "dirham"),
    Country("Ethiopia", "Addis Ababa", "Africa", "Amharic", "birr"),
    Country("Angola", "Luanda", "Africa", "Portuguese", "kwanza"),
    Country("Ghana", "Accra", "Africa", "English", "cedi"),
    Country("Brazil", "Brasilia", "America", "Portuguese", "real"),
    Country("Peru", "Lima", "America", "Spanish", "sol"),
    Country("Mexico", "Mexico City", "America", "Spanish", "peso"),
    Country("Jamaica", "Kingston", "America", "English", "dollar"),
    Country("Paraguay", "Asuncion", "America", "Spanish", "guarani"),
]
ATTRIBUTES = ("capital", "language", "currency")

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

WOMEN = ("Ann", "Dora", "Eva", "Ida", "Mia", "Zoe")
MEN = ("Bob", "Carl", "Finn", "Hugo")
PEOPLE = WOMEN + MEN

LANGUAGE = "Zoran"
ARTICLES = {"the": "lo", "a": "un"}
NOUNS = {
    **{"dog": "kuma", "cat": "miro", "king": "rado", "queen": "rada", "house": "tibe", "river": "sulo"},
    **{"tree": "peva", "child": "nino", "teacher": "dosu", "stone": "gako"},
}
ADJECTIVES = {
    **{"small": "piti", "big": "granu", "red": "veri", "green": "zeli"},
    **{"tall": "stavo", "young": "nova", "happy": "lefi", "quiet": "momu"},
}
VERBS = {"sees": "vidu", "loves": "ama", "finds": "tropa", "hears": "lisu", "takes": "bera", "likes": "susa"}
AND = "ta"
DICTIONARY = {**ARTICLES, **NOUNS, **ADJECTIVES, **VERBS}


class Clause(NamedTuple):
    """`the small dog sees a red house`; either adjective may be missing."""

    subject: tuple[str, str, str]
    verb: str
    object: tuple[str, str, str]

    @classmethod
    def draw(cls, rng: Random) -> Clause:
        return cls(noun_phrase(rng), rng.choice(list(VERBS)), noun_phrase(rng))

    @property
    def english(self) -> str:
        return " ".join(word for word in (*self.subject, self.verb, *self.object) if word)

    @property
    def zoran(self) -> str:
        """Nouns stand before their adjectives, and the verb comes last."""
        order = (*_noun_first(self.subject), *_noun_first(self.object), self.verb)
        return " ".join(DICTIONARY[word] for word in order if word)


def parse_clause(english: str) -> Clause | None:
    """The clause that a text is, or None when it is none."""
    words = english.split()
    verbs = [place for place, word in enumerate(words) if word in VERBS]
    if len(verbs) != 1:
        return None
    subject, object_ = _parse_noun_phrase(words[: verbs[0]]), _parse_noun_phrase(words[verbs[0] + 1 :])
    return Clause(subject, words[verbs[0]], object_) if subject and object_ else None


def noun_phrase(rng: Random) -> tuple[str, str, str]:
    """Return an article, an adjective or nothing, and a noun."""
    adjective = rng.choice(list(ADJECTIVES)) if rng.random() < 0.7 else ""
    return rng.choice(list(ARTICLES)), adjective, rng.choice(list(NOUNS))


def _noun_first(phrase: tuple[str, str, str]) -> tuple[str, str, str]:
    article, adjective, noun = phrase
    return article, noun, adjective


def _parse_noun_phrase(words: list[str]) -> tuple[str, str, str] | None:
    if len(words) == 2:
        words = [words[0], "", words[1]]
    if len(words) != 3 or words[0] not in ARTICLES or words[2] not in NOUNS:
        return None
    return (words[0], words[1], words[2]) if not words[1] or words[1] in ADJECTIVES else None
