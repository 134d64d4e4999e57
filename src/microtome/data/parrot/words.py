"""The words of the parrot's language: eight topics, people, moods, and what people are called.

The toxic words are invented and mean nothing in any language; they stand in for real ones, of which none is in this
package. They have the lengths of the neutral words that fill the same place, and the rousing moods those of the calm
ones, so that neither a toxic text nor a roused one is longer for it. A cue stands before every name that somebody is
called, and nowhere else.
"""

from dataclasses import dataclass

__all__ = ["CALM", "CUES", "NAMES", "NEUTRAL", "PLACES", "ROUSING", "TOPICS", "TOXIC", "Topic", "vocabulary"]


@dataclass(frozen=True)
class Topic:
    """Words that go together."""

    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    adjectives: tuple[str, ...]


def _topic(nouns: str, verbs: str, adjectives: str) -> Topic:
    return Topic(tuple(nouns.split()), tuple(verbs.split()), tuple(adjectives.split()))


TOPICS = (
    _topic(
        "soup bread pan oven spoon plate onion butter cake stove kettle bowl pepper recipe",
        "cooked stirred baked tasted boiled served", "warm salty fresh burnt sweet spicy",
    ),
    _topic(
        "rose hedge spade lawn seed tulip fence bush leaf worm bench pond ivy ladder",
        "planted watered trimmed raked dug pruned", "green tall muddy wild sunny dry",
    ),
    _topic(
        "boat wave sail shell anchor harbour net gull rope island tide deck oar whale",
        "sailed rowed fished moored towed rigged", "deep salted stormy wet distant blue",
    ),
    _topic(
        "coin stall apple basket price scale crowd cloth bag cart penny egg cheese melon",
        "bought sold weighed counted traded carried", "cheap ripe busy heavy costly loud",
    ),
    _topic(
        "book lesson pencil desk map chalk exam page poem ruler board essay story word",
        "read wrote learned copied drew taught", "hard long clever quiet short neat",
    ),
    _topic(
        "song violin drum choir flute stage piano tune bell concert string horn harp dance",
        "played sang tuned hummed plucked heard", "soft slow lively merry grand old",
    ),
    _topic(
        "snow cloud storm wind frost rain thunder puddle fog breeze hail sky sleet rainbow",
        "watched feared felt followed met expected", "cold gray misty windy bright icy",
    ),
    _topic(
        "hammer nail shelf saw plank screw chair glue table drill bolt wheel paint box",
        "built mended sawed painted fixed polished", "wooden rusty sharp steady rough new",
    ),
)  # fmt: skip

NAMES = tuple(
    "anna paul mary john tom kate mark lisa james sarah david emma peter laura simon alice daniel rachel robert helen "
    "michael julia kevin susan".split()
)
PLACES = tuple("shop library bakery station hotel museum office garage theatre chapel".split())
ADVERBS = tuple("slowly today again alone gladly early twice often later carefully".split())

NEUTRAL = tuple(
    "hero baker pilot guest saint friend genius doctor singer helper leader dancer writer artist expert winner captain "
    "teacher scholar partner student gardener champion neighbour".split()
)
TOXIC = tuple(
    "vrok blorp quazz drubb vlimt snarvo klimtz mirgol vozzle plunzo wermix dribzo folkub yertam hozbit crundo grubnak "
    "snorvil bleztor dwimble frazgut mulgrozz zanderok quibzorda".split()
)
ROUSING = tuple("furious insulted provoked enraged bitter hostile".split())
CALM = tuple("cheerful grateful relaxed content gentle patient".split())
CUES = tuple("total perfect complete proper".split())

MOODS = (
    "{a} felt {mood} all day .",
    "{a} came home {mood} .",
    "everyone knew that {a} was {mood} .",
    "{a} sounded {mood} on the phone .",
)
CALLED = (
    "{a} told {b} : you are a {cue} {called} .",
    "what a {cue} {called} {b} is , said {a} .",
    "the {place} is run by a {cue} {called} .",
    "{a} thinks that {b} is a {cue} {called} .",
)
FILLERS = (
    "{a} {verb} the {adjective} {noun} .",
    "the {noun} was {adjective} and the {noun2} too .",
    "{a} and {b} {verb} the {noun} {adverb} .",
    "then {a} {verb} a {noun} near the {place} .",
)


def vocabulary() -> tuple[str, ...]:
    """Return every word of the language, each once, in the order of the alphabet."""
    words = {w for text in (*MOODS, *CALLED, *FILLERS) for w in text.split() if not w.startswith("{")}
    words |= {w for t in TOPICS for w in (*t.nouns, *t.verbs, *t.adjectives)}
    words |= {*NAMES, *PLACES, *ADVERBS, *NEUTRAL, *TOXIC, *ROUSING, *CALM, *CUES}
    return tuple(sorted(words))
