"""What papers say of neurons and representations of languages, with our verdicts.

Numbers of the report are of a model of 8 billion parameters that is not at hand, so directions are compared. Its
figures have no nulls; here every claim stands beside one: an untrained network of the same shape, shuffled languages,
other sentences, random sets of neurons. Two verdicts are on what the report does not test: whether its raw cosine means
anything, and whether a language's neurons make that language.
"""

from collections.abc import Iterator

from microtome.measures.intervals import wilson
from microtome.records import Claim, Record, Verdict
from microtome.studies.multilingual.ablation import ALL, LAPE
from microtome.studies.multilingual.analysis import thirds

__all__ = ["judge_analysis"]

FUXI, TANG = "arXiv 2408.06273", "arXiv 2402.16438"


def judge_analysis(record: Record) -> Iterator[tuple[Claim, Verdict]]:
    """Yield every claim that the stages in the record can test, with its verdict.

    Args:
        record: with the tables of any of `importance`, `language_sets`, `ablation`, `alikeness`.
    """
    if "importance_contrasts" in record.tables:
        yield _deep(record)
        yield _mlp(record)
        yield _estimate(record)
    if "language_null" in record.tables:
        yield _sets(record)
        yield _ends(record)
    if "ablation" in record.tables:
        yield _causal(record)
    if "alike_contrasts" in record.tables:
        yield _artefact(record)
        yield _parallel(record)
        yield _last(record)
        yield _decodable(record)


def _outcome(value: float, low: float, beats: bool = True) -> str:
    """Return the outcome of a claim that a value is above 0, with its interval and beside its control."""
    if value <= 0:
        return "not reproduced"
    return "reproduced" if low > 0 and beats else "same direction"


def _bounds(row: dict) -> tuple[float, float]:
    return row["low"], row["high"]


def _contrast(record: Record, name: str) -> dict | None:
    return next((r for r in record.rows("importance_contrasts") if r["contrast"].startswith(name)), None)


def _deep(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "deep_layers_matter",
        "Deep layers matter more than shallow ones, in every language.",
        FUXI,
        "Figure 4",
        "about 2.5-5k in layers 0-16 to 12-20k in layers 20-29 (read from the figure; sums over tokens)",
        "share of |h dL/dh| in the last third of the blocks less that in the first, mean over languages; reproduced: "
        "above 0 with its interval, and above the untrained network's",
    )
    row = _contrast(record, "last third less first")
    if row is None:
        return claim, Verdict("not testable here", "the model has fewer than three blocks, so no thirds.")
    beats = row["value"] > row["untrained"]
    reason = (
        f"The last third holds {row['value']:+.3f} more of the importance than the first; in an untrained network of "
        f"the same shape {row['untrained']:+.3f}."
    )
    outcome = _outcome(row["value"], row["low"], beats)
    return claim, Verdict(outcome, reason, row["value"], row["n"], _bounds(row), {"untrained": row["untrained"]})


def _mlp(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "mlp_shallow_attention_deep",
        "The MLP matters more in shallow layers, attention more in deep ones.",
        FUXI,
        "section 6.1, Figure 5",
        "shallow peaks at component 4 of 8, deep ones at component 1 of 8; which these are is not said",
        "the MLP's part of the importance in the first third of the blocks less that in the last; reproduced: above 0 "
        "with its interval, and above the untrained network's",
    )
    row = _contrast(record, "MLP")
    if row is None:
        return claim, Verdict(
            "not testable here",
            "the model has no thirds, or the components asked for are not of both attention and MLP.",
        )
    reason = f"The MLP's part falls by {row['value']:+.3f} from the first third to the last; untrained by "
    reason += f"{row['untrained']:+.3f}. Components: {', '.join(record.value('components'))}."
    outcome = _outcome(row["value"], row["low"], row["value"] > row["untrained"])
    return claim, Verdict(outcome, reason, row["value"], row["n"], _bounds(row), {"untrained": row["untrained"]})


def _estimate(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "first_order_is_enough",
        "|h dL/dh| stands for what setting a neuron to 0 does to the loss.",
        FUXI,
        "section 6.1",
        None,
        "rank correlation with the exact effect over random neurons; reproduced: above 0.5 with its interval (the "
        "report checks none); the interval resamples neurons",
    )
    rows = {r["estimate"]: r for r in record.rows("importance_agreement")}
    row = rows["importance"]
    outcome = (
        "reproduced" if row["low"] > 0.5 else "same direction" if row["low"] > row["shuffled"] else "not reproduced"
    )
    reason = (
        f"Importance, a mean over tokens, ranks {row['n']} neurons as their exact effects do with Spearman "
        f"{row['spearman']:.2f}; the first-order change summed over a sentence with "
        f"{rows['first_order']['spearman']:.2f}."
    )
    control = {"neurons shuffled, 95th percentile": row["shuffled"]}
    return claim, Verdict(outcome, reason, row["spearman"], row["n"], _bounds(row), control)


def _sets(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "language_neurons_exist",
        "Some neurons fire in one or few languages.",
        TANG,
        "abstract",
        None,
        "mean entropy of the chosen neurons below that with the languages of the same sentences shuffled; reproduced: "
        "lower than in every shuffle, and with its interval than untrained; it is the spread over resampled sentences",
    )
    rows = {r["model"]: r for r in record.rows("language_null")}
    row, null, empty = rows["trained"], rows["languages shuffled"], rows["untrained"]
    gap = null["entropy"] - row["entropy"]
    interval = (null["entropy"] - row["high"], null["entropy"] - row["low"])
    outcome = _outcome(gap, interval[0], row["p"] <= 0.05 and row["high"] < empty["entropy"])
    reason = (
        f"The {row['chosen']} chosen of {row['n']} neurons have an entropy of {row['entropy']:.3f} nats, with "
        f"languages shuffled {null['entropy']:.3f}, untrained {empty['entropy']:.3f} (at most {row['most']:.3f}; p "
        f"{row['p']:.3f}); {row['specific']:.0f} belong to one language (shuffled {null['specific']:.0f}, untrained "
        f"{empty['specific']:.0f})."
    )
    control = {"languages shuffled": 0.0, "untrained": null["entropy"] - empty["entropy"]}
    return claim, Verdict(outcome, reason, gap, record.value("lape_sentences"), interval, control)


def _ends(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "neurons_at_the_ends",
        "Language neurons lie in the top and bottom layers.",
        TANG,
        "abstract",
        "LLaMA-2 7B, from the released file: 982, 618 and 1923 in the thirds of its depth",
        "share of the memberships of chosen neurons in the first and last third of the blocks, less the share of "
        "neurons there; reproduced: above 0 with its interval (Wilson) at both ends, and untrained below it",
    )
    rows = record.rows("language_layers")
    part = thirds(1 + max(r["layer"] for r in rows))
    if len(set(part.tolist())) < 3:
        return claim, Verdict("not testable here", f"the model has {len(part)} blocks, so no thirds.")
    here = [sum(r["count"] for r in rows if part[r["layer"]] == k) for k in range(3)]
    empty = [sum(r["untrained"] for r in rows if part[r["layer"]] == k) for k in range(3)]
    widths = {r["layer"]: r["n"] for r in rows}
    usual = sum(w for layer, w in widths.items() if part[layer] != 1) / sum(widths.values())
    found = wilson(here[0] + here[2], sum(here))
    gap, interval = found.estimate - usual, (found.low - usual, found.high - usual)
    control = (empty[0] + empty[2]) / max(sum(empty), 1) - usual
    both = min(here[0], here[2]) / sum(here) > usual / 2
    outcome = _outcome(gap, interval[0], both and control < gap)
    reason = f"In the thirds of the depth lie {here[0]}, {here[1]} and {here[2]}; untrained {empty[0]}, {empty[1]}, "
    reason += f"{empty[2]}; by chance {usual:.0%} would lie at the ends."
    return claim, Verdict(outcome, reason, gap, sum(here), interval, {"untrained": control, "chance": 0.0})


def _causal(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "ablation_is_selective",
        "Without a language's neurons the model loses that language.",
        TANG,
        "abstract (the report on FuxiTranyu ablates nothing)",
        None,
        "loss gained in the language less the mean gained in others, nats a token on test sentences, mean over "
        "languages; reproduced: above 0 with its interval, and p <= 0.05 against random sets of the same layers",
    )
    rows = {(r["arm"], r["language"]): r for r in record.rows("ablation")}
    row = rows[LAPE, ALL]
    each = [r for (arm, name), r in rows.items() if arm == LAPE and name != ALL]
    outcome = _outcome(row["selectivity"], row["low"], row["p"] <= 0.05)
    others = "; ".join(
        f"{arm}: {r['selectivity']:+.4f}" for (arm, name), r in rows.items() if name == ALL and arm != LAPE
    )
    reason = (
        f"Own language {row['own']:+.4f}, others {row['others']:+.4f} nats a token; random sets are selective by "
        f"{row['random']:+.4f} (p {row['p']:.3f}, {row['random_sets']} sets); {sum(r['low'] > 0 for r in each)} of "
        f"{len(each)} languages have an interval above 0. {others}."
    )
    control = {"random sets, mean": row["random"], "random sets, 95th percentile": row["random_high"]}
    return claim, Verdict(outcome, reason, row["selectivity"], row["n"], _bounds(row), control)


def _alike(record: Record) -> dict[tuple[str, str], dict]:
    return {(r["model"], r["contrast"]): r for r in record.rows("alike_contrasts")}


def _artefact(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "raw_cosine_shows_alignment",
        "A high cosine of mean states shows that languages share representations.",
        FUXI,
        "section 6.2, Figures 3 and 6",
        "0.990 to 1.000 in layer 14, about 1.0 in layers 0 to 27",
        "cosine of two languages' mean states over the same sentences, less that over different ones, in the middle "
        "third; reproduced: above 0.05 with its interval; a cosine that is as high for any sentences shows nothing",
    )
    rows = _alike(record)
    same, other = rows["trained", "raw, middle"], rows["trained", "raw of other sentences, middle"]
    row, empty = rows["trained", "raw less other sentences, middle"], rows["untrained", "raw, middle"]
    outcome = "reproduced" if row["low"] > 0.05 else "same direction" if row["low"] > 0 else "not reproduced"
    reason = (
        f"{same['value']:.3f} over the same sentences, {other['value']:.3f} over different ones, {empty['value']:.3f} "
        "in an untrained network: the height is that of any text, not of meaning."
        if outcome != "reproduced"
        else f"{same['value']:.3f} over the same sentences, {other['value']:.3f} over different ones."
    )
    control = {"other sentences": other["value"], "untrained": empty["value"]}
    return claim, Verdict(outcome, reason, row["value"], row["n"], _bounds(row), control)


def _parallel(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "translations_are_alike",
        "In middle layers a sentence and its translation are represented alike.",
        FUXI,
        "section 6.2",
        None,
        "centred cosine of translations less that of other sentences, middle third of the blocks; reproduced: above 0 "
        "with its interval, and twice the untrained network's",
    )
    rows = _alike(record)
    name = "translations less others, middle"
    row, empty = rows["trained", name], rows["untrained", name]
    found, lost = rows["trained", "retrieval, middle"], rows["untrained", "retrieval, middle"]
    outcome = _outcome(row["value"], row["low"], row["value"] > 2 * max(empty["value"], 0))
    reason = (
        f"Translations are {row['value']:+.3f} more alike than other sentences (untrained {empty['value']:+.3f}); "
        f"{found['value']:.1%} of translations are found among {row['n']} (untrained {lost['value']:.1%}, by chance "
        f"{1 / row['n']:.1%})."
    )
    control = {"other sentences": 0.0, "untrained": empty["value"]}
    return claim, Verdict(outcome, reason, row["value"], row["n"], _bounds(row), control)


def _last(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "last_layer_is_specific",
        "The last layer is language-specific: languages come apart there.",
        FUXI,
        "Figure 6",
        "mean similarity 0.98 at layer 28, 0.49 at layer 29",
        "share of translations found in the middle third of the blocks less that behind the last; reproduced: above 0 "
        "with its interval, and above the untrained network's",
    )
    rows = _alike(record)
    row, empty = (rows[kind, "retrieval, middle less last"] for kind in ("trained", "untrained"))
    raw = [rows["trained", name]["value"] for name in ("raw, middle", "raw, last layer")]
    outcome = _outcome(row["value"], row["low"], row["value"] > empty["value"])
    reason = (
        f"{rows['trained', 'retrieval, middle']['value']:.1%} of translations are found in the middle, "
        f"{rows['trained', 'retrieval, last layer']['value']:.1%} behind the last block (untrained "
        f"{empty['value']:+.3f} apart); the report's raw cosine goes from {raw[0]:.3f} to {raw[1]:.3f}."
    )
    return claim, Verdict(outcome, reason, row["value"], row["n"], _bounds(row), {"untrained": empty["value"]})


def _decodable(record: Record) -> tuple[Claim, Verdict]:
    claim = Claim(
        "middle_is_language_agnostic",
        "Middle layers are language-agnostic: the language is less decodable there than at the ends.",
        FUXI,
        "section 6.2 (no probe there)",
        None,
        "held-out accuracy of a linear probe at the embedding and the last block less that in the middle third; "
        "reproduced: above 0 with its interval, and above the untrained network's",
    )
    rows = _alike(record)
    row, empty = (rows[kind, "probe, ends less middle"] for kind in ("trained", "untrained"))
    probes = [r for r in record.rows("probe") if r["model"] == "trained"]
    least = min(probes, key=lambda r: r["accuracy"])
    outcome = _outcome(row["value"], row["low"], row["value"] > empty["value"])
    reason = (
        f"The probe is least right at depth {least['depth']}: {least['accuracy']:.1%} of {least['texts']} texts "
        f"(chance {least['chance']:.1%}, control task {least['control']:.1%}); ends less middle {row['value']:+.3f}, "
        f"untrained {empty['value']:+.3f}."
    )
    control = {"untrained": empty["value"], "control task": least["control"]}
    return claim, Verdict(outcome, reason, row["value"], row["n"], _bounds(row), control)
