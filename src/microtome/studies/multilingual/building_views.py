"""What the report shows of a build: what became of the corpus, shares of languages, losses, languages of answers."""

from microtome.records import Record

__all__ = ["building_views", "plan_view", "thesis_views"]

_NAMES = {"pretrain": "before tuning", "sft": "after SFT", "dpo": "after DPO"}


def plan_view(record: Record) -> dict:
    """Return the paragraph that says what the recipe takes."""
    value = record.value
    hours = value("plan_device_hours")
    speed = value("plan_speed")
    lines = [
        f"Recipe `{value('plan_recipe')}`: {value('plan_parameters'):,} parameters, a vocabulary of "
        f"{value('plan_vocabulary'):,}, {value('plan_tokens'):,} tokens in {value('plan_updates'):,} updates, "
        f"{value('plan_flops'):.2e} FLOPs."
    ]
    if hours > 1:
        lines.append(
            f"On 32 devices of 312 TFLOP/s at 40 % of that: {hours / 32:,.1f} hours, and "
            f"{value('plan_bytes_each') / 1e9:,.2f} GB each for weights, gradients and optimizer."
        )
    if speed:
        lines.append(f"This machine was measured at {speed:,.0f} tokens a second, which set the number of tokens.")
    return {"kind": "text", "title": "What the recipe takes", "caption": "\n\n".join(lines)}


def building_views(record: Record) -> list[dict]:
    """Return the views of a build that has ended; none where nothing was built."""
    if "mixture" not in record.tables:
        return []
    found = [_curve(record), _mixture(record), _corpus(record), _duplicates(record)]
    found += [_tokenizer(record)] if "tokenizer" in record.tables else []
    found += [_tuning(record)] if "tuning" in record.tables else []
    if "fidelity" in record.tables:
        found = [_fidelity(record), _answers(), *found]
    return found


def _curve(record: Record) -> dict:
    rows = record.rows("curve")
    return {
        "kind": "curve",
        "title": f"Pretraining: {rows[0]['loss']:.2f} to {record.value('built_loss'):.2f} nats a token in "
        f"{record.value('built_tokens'):,} tokens",
        "caption": f"Mean cross-entropy of every update, in training. {record.value('built_parameters'):,} parameters, "
        f"{record.value('built_seconds'):,.0f} s; {record.value('built_rollbacks')} spikes were rolled back.",
        "table": "curve",
        "encodings": {"x": "tokens", "y": "loss"},
        "labels": {"x": "tokens seen", "y": "loss (nats a token)"},
        "options": {"reference": None},
        "n": f"{record.value('built_updates'):,} updates",
        "control": f"untrained: {rows[0]['loss']:.2f} nats, the first update",
    }


def _mixture(record: Record) -> dict:
    rows = record.rows("mixture")
    off = max(abs(r["realised"] - r["target"]) for r in rows)
    most = max(rows, key=lambda r: r["epochs"])
    return {
        "kind": "table",
        "title": f"Shares were met to {off:.2%} of the documents; most repeated is {most['language']} "
        f"({most['epochs']:.2f} epochs)",
        "table": "mixture",
        "caption": "of_corpus, share_of_tokens: of the tokens there are and of those asked for. target, realised: of "
        "the documents drawn. repeats: documents drawn that had been drawn before.",
        "encodings": {"columns": ["language", "documents", "tokens", "bytes", "of_corpus", "share_of_tokens", "target",
                                  "realised", "drawn", "epochs", "repeats"]},
        "options": {"limit": 80, "formats": dict.fromkeys(("of_corpus", "share_of_tokens", "target", "realised"), ".3%")
                    | {"epochs": ".2f"}},
    }  # fmt: skip


def _corpus(record: Record) -> dict:
    rows = record.rows("corpus")
    read, kept = (sum(r["documents"] for r in rows if r["outcome"] == what) for what in ("read", "kept"))
    return {
        "kind": "table",
        "title": f"Of {read:,} documents the filters kept {kept / read:.2%}",
        "table": "corpus",
        "caption": "What became of every document, by language and reason; examples of the dropped are in the "
        "record's table `dropped`.",
        "encodings": {"columns": ["language", "outcome", "reason", "documents", "characters", "replaced", "share"]},
        "options": {"limit": 200, "formats": {"share": ".3%"}},
    }


def _duplicates(record: Record) -> dict:
    rows = record.rows("duplicates")
    total = sum(r["documents"] for r in rows)
    gone = sum(r["exact"] + r["near"] for r in rows)
    recall = record.value("built_recall")
    told = f" A near-duplicate at the threshold is found with probability {recall:.2f}." if recall else ""
    return {
        "kind": "table",
        "title": f"{gone / total:.2%} of the documents were duplicates",
        "table": "duplicates",
        "caption": "exact: equal but for case, spacing and optional marks; near: by MinHash, then verified; test: held "
        f"out of all training.{told}",
        "encodings": {"columns": ["language", "documents", "exact", "near", "train", "test"]},
        "options": {"limit": 80},
    }


def _tokenizer(record: Record) -> dict:
    rows = record.rows("tokenizer")
    worst = max(rows, key=lambda r: -r["bytes_per_token"])
    return {
        "kind": "table",
        "title": f"{record.value('built_vocabulary'):,} tokens: fewest bytes a token in {worst['language']} "
        f"({worst['bytes_per_token']:.2f})",
        "table": "tokenizer",
        "caption": "Of texts that neither the tokenizer nor the model was trained on. fertility: tokens a word (words "
        "by white space); fallback: share of tokens that are single bytes of a longer character; round_trip: texts "
        "that come back to the byte.",
        "encodings": {"columns": ["language", "texts", "fertility", "fertility_low", "fertility_high",
                                  "bytes_per_token", "bytes_per_token_low", "bytes_per_token_high", "fallback",
                                  "round_trip", "renyi"]},
        "options": {"limit": 80, "formats": dict.fromkeys(("fertility", "fertility_low", "fertility_high",
                                                           "bytes_per_token", "bytes_per_token_low",
                                                           "bytes_per_token_high", "renyi"), ".2f")
                    | {"fallback": ".2%", "round_trip": ".1%"}},
    }  # fmt: skip


def _tuning(record: Record) -> dict:
    rows = record.rows("tuning")
    first = next((r["loss"] for r in rows if r["stage"] == "dpo"), None)
    control = f"DPO before its first update: {first:.4f} (ln 2 = 0.6931)" if first is not None else "the first update"
    return {
        "kind": "curve",
        "title": "Tuning: losses of SFT and DPO",
        "caption": "SFT: cross-entropy of what the assistant says, nats a token. DPO: its loss, whose reference is the "
        "SFT model, so that it begins at ln 2.",
        "table": "tuning",
        "encodings": {"x": "update", "y": "loss", "series": "stage"},
        "labels": {"x": "update", "y": "loss (nats)", "series": "stage"},
        "names": {"series": {"sft": "SFT", "dpo": "DPO"}},
        "options": {"reference": None},
        "n": f"{len(rows):,} updates",
        "control": control,
    }


def _fidelity(record: Record) -> dict:
    stages = list(dict.fromkeys(r["model"] for r in record.rows("fidelity")))
    if not stages:
        said = "No model wrote a line of five words or more to any prompt, so no language could be judged."
        return {"kind": "text", "title": "Answers in the language asked for", "caption": said}
    told = ", ".join(f"{_NAMES[s]} {record.value(f'fidelity_{s}'):.0%}" for s in stages)
    last = stages[-1]
    null = record.value(f"fidelity_{last}_null")
    return {
        "kind": "intervals",
        "title": f"Answers in the language asked for: {told}",
        "caption": "Share of answers all of whose lines are in the wanted language (LPR of arXiv 2406.20052), of "
        "prompts made of held-out passages. Answers without a line of five words are left out.",
        "table": "fidelity",
        "encodings": {
            "group": "language",
            "value": "passed",
            "low": "low",
            "high": "high",
            "series": "model",
            "n": "n",
        },
        "labels": {"group": "language", "value": "answers in the right language (share, 0 to 1)", "series": "model"},
        "names": {"series": _NAMES},
        "options": {"reference": None},
        "n": f"{record.value(f'fidelity_{last}_n')} judged answers of each model",
        "interval": "95 %, Wilson",
        "control": f"wanted languages shuffled: {null:.2f}" if null is not None else "the model before tuning",
    }


def _answers() -> dict:
    return {
        "kind": "table",
        "title": "What the models answer",
        "table": "answers",
        "caption": "Greedy answers to the same prompts, made of passages that no model was tuned on.",
        "encodings": {"columns": ["model", "wanted", "task", "prompt", "answer"]},
        "names": {"model": _NAMES},
        "options": {"limit": 40},
    }


def thesis_views(record: Record) -> list[dict]:
    """Return the views of balanced against skewed data; none where it was not asked for."""
    if "thesis" not in record.tables:
        return []
    rows = {r["of"]: r for r in record.rows("thesis")}
    worst, favoured = rows["worst"], next((r for r in rows.values() if r["favoured"]), None)
    cost = f"; {favoured['of']} pays {-favoured['gain']:.2f}" if favoured else ""
    pairs = f"{record.value('thesis_seeds')} pairs of models of {record.value('thesis_parameters'):,} parameters and "
    control = f"the favoured language: {favoured['gain']:+.3f}" if favoured else "no gain: 0"
    return [
        {
            "kind": "intervals",
            "title": f"Balance gains {worst['gain']:.2f} bits per byte in the worst language{cost}",
            "caption": "Bits per byte with English-heavy data less those with balanced data, at equal tokens, on the "
            "same sentences. Above 0: balance is better. mean, worst and neglected are over languages.",
            "table": "thesis",
            "encodings": {"group": "of", "value": "gain", "low": "low", "high": "high", "n": "n"},
            "labels": {"group": "language", "value": "gain of balance (bits per byte)"},
            "options": {"reference": 0},
            "n": pairs + f"{record.value('thesis_tokens'):,} tokens, {record.value('thesis_sentences')} sentences",
            "interval": "95 %, Student's over pairs of models",
            "control": control,
        },
        {
            "kind": "table",
            "title": "Balanced and English-heavy in numbers",
            "table": "thesis",
            "caption": "Bits per byte, mean over models.",
            "encodings": {"columns": ["of", "balanced", "skewed", "gain", "low", "high", "n"]},
            "options": {"limit": 80, "formats": dict.fromkeys(("balanced", "skewed", "gain", "low", "high"), ".3f")},
        },
    ]
