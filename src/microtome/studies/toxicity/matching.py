"""Steps that make interventions comparable: the strength at which each does the same damage to clean text.

    clean KL = mean over tokens of clean texts of KL(unedited next token || edited)         nats

Strengths are tried on a grid, all settings of all families that are edits in one sweep (no prefix is run twice), and
refined where the KL crosses a budget. A family that stays below a budget at its largest strength has that strength; one
that is above it at its smallest has none. The setting is chosen at the headline budget, by completions of the discovery
prompts that the selector scores; a control has the middle one of its settings. The test half is not looked at.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from microtome.core.seeds import derive, generator
from microtome.measures.outputs import KL
from microtome.models.batch import Batch
from microtome.records import StageOutput, Told
from microtome.studies.toxicity.arm import Arm, completions, decoded, logits_at, scores, values
from microtome.studies.toxicity.methods import Family, left_out
from microtome.studies.toxicity.subject import Subject

__all__ = ["Clean", "Tried", "match", "select", "tried_of"]

GRID = 9  # strengths tried at first, each half the next
ROUNDS = 3


@dataclass(frozen=True)
class Tried:
    """A family at one setting, the strengths tried and the KL of each.

    Attributes:
        family: the family.
        setting: told name of its setting.
        kl: strength -> clean KL, nats a token.
    """

    family: Family
    setting: str
    kl: dict[float, float]

    def arm(self, strength: float) -> Arm:
        """Return the arm of a strength."""
        return self.family.make(self.family.settings[self.setting], strength)

    def at(self, budget: float) -> float:
        """Return the largest strength whose KL is within the budget, as that of every smaller one tried; 0 for none."""
        best = 0.0
        for strength in sorted(self.kl):
            if not self.kl[strength] <= budget:
                break
            best = strength
        return best

    def next(self, budget: float) -> float | None:
        """Return a strength to try where the KL should meet the budget; None where that is known well enough."""
        low = self.at(budget)
        above = [s for s in sorted(self.kl) if s > low]
        if not above or self.kl.get(low, 0.0) > 0.97 * budget:
            return None
        high = above[0]
        if self.family.whole:
            middle = round((low + high) / 2)
            return float(middle) if low < middle < high else None
        # KL grows as the square of a small strength: interpolate between logarithms, aiming a little below
        aim = math.log(0.985 * budget)
        y = math.log(max(self.kl[high], 1e-12))
        if low == 0 or self.kl[low] <= 0:
            return high * math.exp((aim - y) / 2)
        x = math.log(self.kl[low])
        share = (aim - x) / max(y - x, 1e-9)
        return math.exp(math.log(low) + min(max(share, 0.02), 0.98) * (math.log(high) - math.log(low)))


class Clean:
    """Clean texts at which damage is matched: a few tokens of each, the unedited logits there kept.

    Args:
        subject: the model and its sources.
    """

    def __init__(self, subject: Subject):
        self.subject = subject
        texts = list(subject.sources.clean["discovery"])
        rng, count = generator(subject.config.seed, "clean positions"), subject.config.arms.positions
        self.parts: list[tuple[Batch, KL]] = []
        for batch in subject.batches(subject.rows(texts)):
            lengths = batch.mask.sum(1).tolist()
            places = [batch.seq - n + rng.integers(0, n, count) for n in lengths]
            at = torch.from_numpy(np.stack(places))
            self.parts.append((batch, KL(logits_at(Arm(subject.model), batch, at).float(), at)))

    def divergences(self, arms: Sequence[Arm], told: Told | None = None) -> list[float]:
        """Return the clean KL of every arm; those that are edits of the same model run in one sweep."""
        budget, base = self.subject.config.memory_budget, Arm(self.subject.model)
        found = values([base, *arms], self.parts, memory_budget=budget, told=told)
        return found[1:].mean(1).clamp(min=0).tolist()


def match(subject: Subject, made: Sequence[Family], told: Told) -> StageOutput:
    """Every family at every setting: the strengths tried and the KL of each."""
    clean, budgets = Clean(subject), subject.config.arms.budgets
    tried = [Tried(f, setting, {0.0: 0.0}) for f in made for setting in f.settings]
    wanted = [(t, s) for t in tried for s in _grid(t.family)]
    for step in range(ROUNDS + 1):
        share = 0.5 if step == 0 else 0.5 / ROUNDS
        start = 0.0 if step == 0 else 0.5 + (step - 1) * share
        arms = [t.arm(s) for t, s in wanted]
        for (t, s), kl in zip(wanted, clean.divergences(arms, _part(told, start, share)), strict=True):
            t.kl[s] = kl
        wanted = list({(id(t), s): (t, s) for t in tried for b in budgets if (s := t.next(b)) is not None}.values())
        if not wanted:
            break
    return StageOutput(tables={"strengths": _strengths(tried)}, values={"left_out": left_out()})


def _part(told: Told, start: float, share: float) -> Callable[[float], None]:
    return lambda x: told(start + share * x)


def _grid(family: Family) -> list[float]:
    steps = [family.most * 2.0**-i for i in range(GRID)]
    return sorted({float(max(1, round(s))) for s in steps}) if family.whole else sorted(steps)


def _strengths(tried: Sequence[Tried]) -> list[dict]:
    return [
        {"family": t.family.name, "label": t.family.label, "setting": t.setting, "strength": s, "kl": kl}
        for t in tried
        for s, kl in sorted(t.kl.items())
    ]


def tried_of(made: Sequence[Family], rows: Sequence[dict]) -> list[Tried]:
    """Return what `match` found, from its table."""
    found = {(f.name, setting): Tried(f, setting, {}) for f in made for setting in f.settings}
    for row in rows:
        found[row["family"], row["setting"]].kl[row["strength"]] = row["kl"]
    return list(found.values())


def select(subject: Subject, tried: Sequence[Tried], told: Told) -> StageOutput:
    """Choose each family's setting at the headline budget, by the selector's score of discovery completions."""
    config = subject.config
    prompts = [p.text for p in subject.sources.prompts["discovery"]]
    rows, noop = [], _scored(subject, Arm(subject.model), prompts)
    for i, t in enumerate(tried):
        strength = t.at(config.arms.headline)
        rate = _scored(subject, t.arm(strength), prompts) if strength else noop
        rows.append(
            {
                "family": t.family.name,
                "label": t.family.label,
                "setting": t.setting,
                "strength": strength,
                "kl": t.kl[strength],
                "rate": rate,
                "n": len(prompts),
                "reached": strength > 0,
            }
        )
        told((i + 1) / len(tried))
    best = _best(rows, {t.family.name for t in tried if t.family.control})
    chosen = [{**r, "chosen": best[r["family"]] is r} for r in rows]
    tables = {"selection": chosen, "strengths_at": _budgets(tried, best, config.arms.budgets)}
    return StageOutput(tables=tables, values={"selection_rate": noop})


def _best(rows: Sequence[dict], controls: set[str]) -> dict[str, dict]:
    """Return family -> the row of its setting: the least toxic; of a control, which is not tuned, the middle one."""
    best = {}
    for family in dict.fromkeys(r["family"] for r in rows):
        ranked = sorted((r for r in rows if r["family"] == family), key=lambda r: r["rate"])
        best[family] = ranked[(len(ranked) - 1) // 2 if family in controls else 0]
    return best


def _budgets(tried: Sequence[Tried], best: dict[str, dict], budgets: Sequence[float]) -> list[dict]:
    """Return each chosen setting's strength at every budget; where none is so mild, its mildest at its own damage."""
    rows = []
    for t in tried:
        if best[t.family.name]["setting"] != t.setting:
            continue
        for budget in (b for b in budgets if t.at(b)):
            strength = t.at(budget)
            rows.append(_at_budget(t, budget, strength, "largest strength" if strength == max(t.kl) else "matched"))
        if not t.at(max(budgets)):
            mildest = min(s for s in t.kl if s > 0)
            rows.append(_at_budget(t, t.kl[mildest], mildest, "cannot be milder"))
    return rows


def _at_budget(t: Tried, budget: float, strength: float, state: str) -> dict:
    return {
        "family": t.family.name,
        "label": t.family.label,
        "place": t.family.place,
        "control": t.family.control,
        "setting": t.setting,
        "budget": budget,
        "strength": strength,
        "kl": t.kl[strength],
        "state": state,
        "source": t.family.source,
    }


def _scored(subject: Subject, arm: Arm, prompts: Sequence[str]) -> float:
    """Return the share of completions that the selector calls toxic."""
    how = subject.config.generating
    how = replace(how, completions=max(1, how.completions // 2))
    said = completions(arm, prompts, how, derive(subject.config.seed, "selection completions"))
    return float((scores(subject.sources.selector, decoded(arm, said)) >= how.threshold).mean())
