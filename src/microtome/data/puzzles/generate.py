"""The factorial puzzle generator: fact in the weights or in the passage x one hop or two.

For every item and skeleton the four cells share answer, counterfactual answer, skeleton and token count, so task is
not confounded with template, length or answer type (the confounds of the prompts in arXiv 2510.03366, see
`paper.py`). Each prompt has a minimal counterfactual: the entity asked about is replaced by another of as many tokens,
and the answer changes. Variants:

    nonce       passages about invented names: nothing in them can be recalled
    shared      as nonce, but all four cells show the whole passage, which holds both answers
    real        passages say the truth about real places: reading and recalling agree
    contradict  passages swap the two answers of real places: in the cells with a passage `answer` is what a reader
                says (the other cells' counterfactual answer), `recalled` what the weights say
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from microtome.core.errors import DataError, did_you_mean
from microtome.data.atlas import TWO_HOP_RELATIONS
from microtome.data.pairs import Pair, PairSet
from microtome.data.puzzles.items import Item, candidate_items
from microtome.data.puzzles.render import SKELETONS, Cell, Sentence, Skeleton, Variant, render_cells
from microtome.data.puzzles.tokens import Encode, Vocabulary

__all__ = ["Puzzle", "PuzzleSplit", "make_puzzles", "pairs_of", "split_puzzles"]


@dataclass(frozen=True)
class Puzzle:
    """One prompt of the factorial, with its minimal counterfactual.

    Attributes:
        item: which item (relation, two countries, direction); the four cells and all skeletons of it share this.
        pair: which two countries; splits keep it whole.
        skeleton: which wording.
        cell: where the fact is and how many hops.
        relation: what is asked.
        variant: what the passages are about.
        entity: who is asked about, and in the counterfactual.
        cf_entity: who is asked about in the counterfactual.
        prompt: the text; it ends right before the answer, which begins with a space.
        counterfactual: the same with `cf_entity`.
        answer: what follows the prompt.
        cf_answer: what follows the counterfactual.
        ids: tokens of the prompt.
        cf_ids: tokens of the counterfactual, as many.
        answer_ids: tokens of the answer after the prompt; the first differs from the counterfactual answer's.
        cf_answer_ids: tokens of the counterfactual answer.
        changed: positions where the two prompts differ; all within the entity.
        positions: token positions by class: `entity`, `entity_last`, `relation`, `last`, and for sentences shown
            `fact_entity`, `fact_answer`, `link_entity`, `link_answer` and the same with `cf_` in front.
        answer_in_prompt: True where the prompt holds the answer's words.
        recalled: what the weights say of a real entity; None for an invented one.
        held_out_wording: True where zoo:atlas was trained without this skeleton's wording.
        two_hop: for `latent_2hop`, whether zoo:atlas was shown the answer (`train`) or not (`pair`, `city`); else None.
    """

    item: str
    pair: str
    skeleton: str
    cell: Cell
    relation: str
    variant: Variant
    entity: str
    cf_entity: str
    prompt: str
    counterfactual: str
    answer: str
    cf_answer: str
    ids: tuple[int, ...]
    cf_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    cf_answer_ids: tuple[int, ...]
    changed: tuple[int, ...]
    positions: Mapping[str, tuple[int, ...]]
    answer_in_prompt: bool
    recalled: str | None
    held_out_wording: bool
    two_hop: str | None


class PuzzleSplit(NamedTuple):
    """Puzzles for finding and for testing; no pair of countries is on both sides.

    Attributes:
        discovery: seen skeletons, items of the first side.
        test: seen skeletons, items of the second side.
        unseen: held-out skeletons, items of the second side.
    """

    discovery: tuple[Puzzle, ...]
    test: tuple[Puzzle, ...]
    unseen: tuple[Puzzle, ...]


def make_puzzles(
    encode: Encode,
    *,
    items: int | None = 64,
    skeletons: Sequence[Skeleton] = SKELETONS,
    cells: Sequence[Cell | str] = tuple(Cell),
    relations: Sequence[str] = TWO_HOP_RELATIONS,
    variant: Variant | str = Variant.NONCE,
    seed: int = 0,
) -> list[Puzzle]:
    """Return puzzles for a tokenizer: every item in every skeleton and cell.

    Args:
        encode: text to token ids, e.g. `lambda text: tokenizer(text)["input_ids"]`; no token may follow the text.
        items: how many items; None for as many as fit.
        skeletons: wordings to cross them with; the last four are held out of zoo:atlas's training.
        cells: which cells to return.
        relations: what may be asked.
        variant: what the passages are about.
        seed: of pairing, names, sentence order and fillers.

    Raises:
        DataError: unknown relation, cell or variant; an `encode` that ends texts; fewer items fit than asked.

    Example:
        puzzles = make_puzzles(lambda text: tokenizer(text)["input_ids"], items=32)
    """
    wanted = [_known(Cell, cell, "cell") for cell in cells]
    about = _known(Variant, variant, "variant")
    for relation in relations:
        if relation not in TWO_HOP_RELATIONS:
            hint = did_you_mean(relation, TWO_HOP_RELATIONS)
            raise DataError(f"No puzzle relation '{relation}'; there are {', '.join(TWO_HOP_RELATIONS)}.{hint}")
    vocabulary, refused = Vocabulary(encode), Counter()
    puzzles, found = [], 0
    for item in candidate_items(vocabulary, relations, seed, refused):
        if found == items:
            break
        made = _puzzles_of(item, skeletons, wanted, about, vocabulary, seed, refused)
        if made is not None:
            puzzles += made
            found += 1
    if found < (1 if items is None else items):
        raise DataError(_too_few(items, found, relations, refused))
    return puzzles


def split_puzzles(
    puzzles: Sequence[Puzzle], *, discovery: float = 0.5, unseen: Sequence[str] | None = None, seed: int = 0
) -> PuzzleSplit:
    """Split puzzles by pair of countries, and set whole skeletons apart.

    Args:
        puzzles: what to split.
        discovery: share of the pairs on the first side.
        unseen: names of skeletons that only the test side keeps; None for those with held-out wording.
        seed: of the draw.

    Raises:
        DataError: discovery or test would be empty, or `unseen` names a skeleton that no puzzle has.
    """
    pairs, known = sorted({p.pair for p in puzzles}), sorted({p.skeleton for p in puzzles})
    for name in unseen or ():
        if name not in known:
            hint = did_you_mean(name, known)
            raise DataError(f"No skeleton '{name}' in these puzzles; they have {', '.join(known)}.{hint}")
    random.Random(f"split-{seed}").shuffle(pairs)
    cut = round(len(pairs) * discovery)
    if not 0 < cut < len(pairs):
        raise DataError(
            f"Asked to split {len(pairs)} pairs of countries with share {discovery}; one side would have none; "
            "make more items or move the share towards 0.5."
        )
    first = set(pairs[:cut])
    apart = {p.skeleton for p in puzzles if p.held_out_wording} if unseen is None else set(unseen)
    if apart == set(known):
        raise DataError(
            f"Asked to set {', '.join(known)} apart; no skeleton is left for discovery; name fewer as unseen."
        )
    return PuzzleSplit(
        tuple(p for p in puzzles if p.pair in first and p.skeleton not in apart),
        tuple(p for p in puzzles if p.pair not in first and p.skeleton not in apart),
        tuple(p for p in puzzles if p.pair not in first and p.skeleton in apart),
    )


def pairs_of(puzzles: Sequence[Puzzle]) -> PairSet:
    """Return puzzles as pairs: base the prompt, source its counterfactual, groups entity, template and cell.

    Raises:
        DataError: there are none.
    """
    return PairSet(tuple(_pair(puzzle) for puzzle in puzzles))


def _pair(puzzle: Puzzle) -> Pair:
    groups = {"entity": puzzle.pair, "template": puzzle.skeleton, "cell": str(puzzle.cell)}
    return Pair(puzzle.prompt, puzzle.counterfactual, puzzle.answer, puzzle.cf_answer, "cause", groups)


def _known(kind: type[Cell] | type[Variant], asked: str, noun: str):
    names = [str(member) for member in kind]
    if asked not in names:
        raise DataError(f"No puzzle {noun} '{asked}'; there are {', '.join(names)}.{did_you_mean(asked, names)}")
    return kind(asked)


def _too_few(items: int | None, found: int, relations: Sequence[str], refused: Counter[str]) -> str:
    pairs = refused.pop("pairs of countries", 0)
    reasons = ", ".join(f"{count} {reason}" for reason, count in refused.most_common()) or "none"
    asked = "any" if items is None else str(items)
    remedy = f"ask for at most {found}" if found else "use another tokenizer or other relations"
    return (
        f"Asked for {asked} puzzle items, found {found} that fit this tokenizer ({pairs} pairs of countries x "
        f"{len(relations)} relations x 2 directions = {2 * pairs * len(relations)} candidates; refused: {reasons}); "
        f"{remedy}."
    )


def _puzzles_of(
    item: Item,
    skeletons: Sequence[Skeleton],
    cells: Sequence[Cell],
    variant: Variant,
    vocabulary: Vocabulary,
    seed: int,
    refused: Counter[str],
) -> list[Puzzle] | None:
    """Return the item in all skeletons and cells, or None where one of them does not fit the tokenizer."""
    puzzles = []
    for skeleton in skeletons:
        rendered = render_cells(item, skeleton, vocabulary, variant, seed, refused)
        if rendered is None:
            return None
        for cell in cells:
            puzzle = _puzzle(item, skeleton, cell, variant, *rendered[cell], vocabulary)
            if puzzle is None:
                refused["tokens that straddle a word or sentence"] += 1
                return None
            puzzles.append(puzzle)
    return puzzles


def _puzzle(
    item: Item,
    skeleton: Skeleton,
    cell: Cell,
    variant: Variant,
    sentences: tuple[Sentence, ...],
    cf_cue: Sentence,
    vocabulary: Vocabulary,
) -> Puzzle | None:
    cue = sentences[-1]
    passage = " ".join(sentence.text for sentence in sentences[:-1])
    prompt, counterfactual = f"{passage} {cue.text}", f"{passage} {cf_cue.text}"
    ids, cf_ids = vocabulary.encode(prompt), vocabulary.encode(counterfactual)
    positions = _positions(sentences, ids, vocabulary)
    if positions is None or len(ids) != len(cf_ids):
        return None
    changed = tuple(i for i, (a, b) in enumerate(zip(ids, cf_ids, strict=True)) if a != b)
    if not set(changed) <= set(positions["entity"]):
        return None
    swapped = variant is Variant.CONTRADICT and cell.in_context
    answer, cf_answer = item.answers[::-1] if swapped else item.answers
    invented = cell.in_context and variant in (Variant.NONCE, Variant.SHARED)
    return Puzzle(
        item=item.name,
        pair=item.pair,
        skeleton=skeleton.name,
        cell=cell,
        relation=item.relation,
        variant=variant,
        entity=cue.text[slice(*cue.spans["entity"])],
        cf_entity=cf_cue.text[slice(*cf_cue.spans["entity"])],
        prompt=prompt,
        counterfactual=counterfactual,
        answer=answer,
        cf_answer=cf_answer,
        ids=ids,
        cf_ids=cf_ids,
        answer_ids=vocabulary.sentence(answer),
        cf_answer_ids=vocabulary.sentence(cf_answer),
        changed=changed,
        positions=positions,
        answer_in_prompt=re.search(rf"\b{re.escape(answer)}\b", prompt) is not None,
        recalled=None if invented else item.answers[0],
        held_out_wording=skeleton.held_out,
        two_hop=item.two_hop if cell is Cell.LATENT_2HOP else None,
    )


def _positions(
    sentences: tuple[Sentence, ...], ids: tuple[int, ...], vocabulary: Vocabulary
) -> dict[str, tuple[int, ...]] | None:
    """Return token positions by class, or None where the text's tokens are not those of its sentences in a row."""
    positions: dict[str, tuple[int, ...]] = {}
    offset = len(vocabulary.start)
    for number, sentence in enumerate(sentences):
        own = vocabulary.sentence(sentence.text, first=number == 0)
        if ids[offset : offset + len(own)] != own:
            return None
        for name, (start, end) in sentence.spans.items():
            span = vocabulary.span(sentence.text, start, end, first=number == 0)
            if span is None:
                return None
            positions[name] = tuple(range(offset + span[0], offset + span[1]))
        offset += len(own)
    positions |= {"entity_last": positions["entity"][-1:], "last": (len(ids) - 1,)}
    return positions if offset == len(ids) else None
