"""What the report shows of the evaluation: bits per byte by language, accuracies by benchmark, and the two scorers."""

from microtome.records import Record

__all__ = ["accuracy_table", "accuracy_view", "agreement_view", "bits_table", "bits_view", "published_view"]


def bits_view(record: Record) -> dict:
    """Return the bars of bits per byte by language, the best unigram model of the sentences as a grey tick."""
    rows = record.rows("bits")
    below = sum(r["below_unigram"] for r in rows)
    worst = f"{record.value('bits_worst'):.2f} ({record.value('bits_worst_language')})"
    return {
        "kind": "bars",
        "title": f"Bits per byte: mean {record.value('bits_mean'):.2f}, worst {worst}; below the unigram line "
        f"in {below} of {len(rows)} languages",
        "caption": "The same sentences in every language; low is good. Grey: the best unigram model of these very "
        f"sentences. Untrained twin: {record.value('bits_mean_untrained'):.2f} on average; raw bytes: "
        f"{rows[0]['uniform_bytes']:.0f}. Bytes a character differ by script, so compare a language with its own tick.",
        "table": "bits",
        "encodings": {"x": "language", "y": "bits_per_byte", "low": "low", "high": "high", "control": "unigram",
                      "n": "n"},
        "labels": {"y": "bits per byte", "control": "unigram"},
        "n": f"{record.value('bits_sentences'):,} parallel sentences",
        "interval": "95 % bootstrap over sentences",
        "control": f"unigram entropy; untrained twin {record.value('bits_mean_untrained'):.2f}",
    }  # fmt: skip


def bits_table(record: Record) -> dict:
    """Return the same in numbers."""
    numbers = ["bits_per_byte", "low", "high", "unigram", "untrained", "uniform_bytes"]
    return {
        "kind": "table",
        "title": "Bits per byte in numbers",
        "table": "bits",
        "caption": f"Mean {record.value('bits_mean'):.3f} ({record.value('bits_mean_low'):.3f} to "
        f"{record.value('bits_mean_high'):.3f}), worst {record.value('bits_worst_low'):.3f} to "
        f"{record.value('bits_worst_high'):.3f}: 95 % bootstrap over sentences, the same ones in every language.",
        "encodings": {"columns": ["language", *numbers, "tokens", "bytes", "n"]},
        "options": {"limit": 60, "formats": dict.fromkeys(numbers, ".3f")},
    }


def accuracy_view(record: Record) -> dict:
    """Return the dots of accuracy by language, a panel a benchmark, chance as a grey tick."""
    rows = record.rows("accuracy")
    above = sum(r["above_chance"] for r in rows)
    return {
        "kind": "intervals",
        "title": f"Questions: above chance in {above} of {len(rows)} cells",
        "caption": "Share of questions whose right option the model finds likeliest. Grey: chance. The untrained "
        "twin's accuracy and the test against it are in the table.",
        "table": "accuracy",
        "encodings": {"group": "language", "value": "acc", "low": "low", "high": "high", "control": "chance",
                      "facet": "benchmark", "n": "n"},
        "labels": {"group": "language", "value": "accuracy (share, 0 to 1)", "facet": "benchmark"},
        "options": {"reference": None},
        "n": f"{record.value('questions'):,} questions",
        "interval": "95 %, Wilson",
        "control": "chance; untrained twin",
    }  # fmt: skip


def accuracy_table(record: Record) -> dict:
    """Return the same in numbers, with the test against the twin and the share of contaminated questions."""
    searched = any(r["contaminated"] is not None for r in record.rows("accuracy"))
    shares = ["acc", "low", "high", "acc_norm", "chance", "untrained"]
    return {
        "kind": "table",
        "title": "Accuracies in numbers",
        "table": "accuracy",
        "caption": "gained, lost: questions that the model alone, or its untrained twin alone, answers; p: exact "
        "McNemar test of the two; q: Benjamini and Hochberg's over all rows. "
        + ("contaminated: share of questions of which the corpus holds a piece of 13 words." if searched else
           "No corpus was searched for the questions."),
        "encodings": {"columns": ["benchmark", "language", *shares, "gained", "lost", "p", "q",
                                  *(["contaminated"] if searched else []), "n"]},
        "options": {"limit": 80, "formats": dict.fromkeys(shares, ".3f")
                    | ({"contaminated": ".3f"} if searched else {})},
    }  # fmt: skip


def agreement_view(record: Record) -> dict:
    """Return the table of lm-eval's accuracies beside ours."""
    alike = "the same accuracies" if record.value("harness_agrees") else "other accuracies"
    return {
        "kind": "table",
        "title": f"lm-evaluation-harness gives {alike}",
        "table": "agreement",
        "caption": f"The same {record.value('harness_questions'):,} questions through lm-eval and through our scorer; "
        f"log-likelihoods differ by {record.value('harness_largest_difference'):.1e} nats at most.",
        "encodings": {"columns": ["benchmark", "language", "harness", "ours", "chosen_alike", "largest_difference",
                                  "n"]},
        "labels": {"largest_difference": "largest difference (nats)"},
        "options": {"limit": 80, "formats": {"harness": ".3f", "ours": ".3f", "chosen_alike": ".3f",
                                             "largest_difference": ".1e"}},
    }  # fmt: skip


def published_view(record: Record) -> dict:
    """Return the table of the report's own figures that do not add up."""
    slips = record.value("published_slips")
    return {
        "kind": "table",
        "title": f"The report's own arithmetic: {slips} of its means do not add up",
        "table": "published",
        "caption": "Averages of the report's Tables 5 and 6 against a second source of the same number.",
        "encodings": {"columns": ["model", "benchmark", "cell", "place", "printed", "second", "by", "difference"]},
        "options": {"limit": 20, "formats": {"printed": ".1f", "second": ".1f", "difference": "+.1f"}},
    }
