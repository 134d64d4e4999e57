"""The card of zoo:babel: what it was trained on, and how well the stored weights predict each language.

Bits per byte are of texts that were held out of training (a share of the corpus) and of parallel text, where there is
a folder of it, whose sentences the corpus was searched for. Nothing but the sources and their licences is typed in.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from microtome.core.seeds import generator
from microtome.data.parallel import read_parallel
from microtome.measures.bits import bits_per_byte, text_bits, unigram_bits
from microtome.measures.intervals import Interval
from microtome.models.model import Model
from microtome.models.zoo.untrained import untrained
from microtome.training.build.artefacts import Artefact
from microtome.training.build.texts import languages_in

__all__ = ["write_card"]

_TEXTS = 200  # of each language, that the models are examined on


def write_card(folder: Path, trained: Mapping[str, Artefact], made: Mapping[str, Artefact], parallel: Path) -> Path:
    """Examine the models in a folder and write their card there, as README.md; return the file.

    Args:
        folder: of the model, with a folder for each variant.
        trained: variant -> its `pretrain` stage.
        made: the stages they share.
        parallel: folder of parallel texts; it need not exist.
    """
    held = {name: list(islice(texts, _TEXTS)) for name, texts in languages_in(made["dedup"].path / "test").items()}
    aligned = read_parallel(parallel, list(held), sentences=_TEXTS) if parallel.is_dir() else {}
    models = {variant: Model.load(str(folder / variant)) for variant in trained}
    lines = [*_about(trained, models), *_data(trained, made)]
    lines += _bits("Held-out documents of the corpus", models, held)
    if aligned:
        lines += _bits("Parallel text, the same sentences in every language", models, aligned)
    path = folder / "README.md"
    path.write_text("\n".join([*lines, *_limits(trained)]) + "\n", encoding="utf-8")
    return path


def _about(trained: Mapping[str, Artefact], models: Mapping[str, Model]) -> list[str]:
    first = trained[""]
    told = first.manifest["told"]
    return [
        "# zoo:babel, zoo:babel-en",
        "",
        "Small language models of twelve languages, trained from raw text: `babel` on all in nearly equal parts, "
        "`babel-en` on as",
        "many tokens of which 60 % are English. The recipe is that of `microtome zoo build babel --seed "
        f"{told['seed']} --data CORPUS`;",
        "every number below was measured on the stored weights.",
        "",
        f"- {told['model']['block']} blocks: {told['model']['layers']} of width {told['model']['width']}, "
        f"{told['model']['mlp']} neurons, {told['model']['heads']} heads; vocabulary "
        f"{models[''].module.config.vocab_size:,}, context {told['model']['context']}",
        f"- {first.values['parameters']:,} parameters, stored in float16, examined in float32",
        f"- {first.values['tokens']:,} tokens each in {first.values['updates']:,} updates; "
        + ", ".join(f"`babel{'-' + v if v else ''}` {a.values['seconds'] / 60:.0f} min" for v, a in trained.items())
        + " on a shared CPU core",
        "",
    ]


def _data(trained: Mapping[str, Artefact], made: Mapping[str, Artefact]) -> list[str]:
    sizes = {row["language"]: row for row in made["tokens"].values["languages"]}
    drawn = {v: {row["language"]: row for row in a.values["realised"]} for v, a in trained.items()}
    asked = {v: {row["language"]: row for row in a.values["mix"]} for v, a in trained.items()}
    rows = [
        f"| {name} | {row['documents']:,} | {row['bytes'] / 1e6:.1f} | {row['tokens']:,} | "
        + " | ".join(f"{asked[v][name]['share']:.1%} | {drawn[v][name]['epochs']:.1f}" for v in trained)
        + " |"
        for name, row in sizes.items()
    ]
    return [
        "## Data",
        "",
        "One sentence or paragraph a document, filtered, scrubbed of personal data, without near-duplicates, none that",
        "holds a sentence of the parallel text. Sources: sentences of Mozilla Common Voice (CC0), translations of the",
        "Python documentation (CC0; Japanese unconfirmed), React documentation and tldr pages (CC-BY-4.0), the Russian",
        "translation of the Rust book (MIT or Apache-2.0). The text is not part of this package.",
        "",
        "| language | documents | MB | tokens | babel: share | epochs | babel-en: share | epochs |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        *rows,
        "",
    ]


def _bits(title: str, models: Mapping[str, Model], texts: Mapping[str, Sequence[str]]) -> list[str]:
    twin = Model.load(untrained(models[""].module, 0), tokenizer=models[""].tokenizer)
    rows, found = [], {variant: [] for variant in models}
    for name, own in texts.items():
        cells = []
        for variant, model in models.items():
            value = bits_per_byte(text_bits(model, own), rng=generator(0, "card", name))
            found[variant].append(value.estimate)
            cells.append(_shown(value))
        null = text_bits(twin, own).per_byte
        rows.append(f"| {name} | {len(own)} | {' | '.join(cells)} | {unigram_bits(models[''], own):.2f} | {null:.2f} |")
    means = " | ".join(f"{np.mean(values):.3f}" for values in found.values())
    worst = " | ".join(f"{max(values):.3f}" for values in found.values())
    return [
        f"## {title}: bits per byte",
        "",
        "95 % bootstrap over texts. unigram: the best unigram model of these very texts; untrained: random weights.",
        "",
        "| language | n | babel | babel-en | unigram | untrained |",
        "|---|--:|--:|--:|--:|--:|",
        *rows,
        f"| mean | | {means} | | |",
        f"| worst | | {worst} | | |",
        "",
    ]


def _shown(value: Interval) -> str:
    return f"{value.estimate:.3f} ({value.low:.3f} to {value.high:.3f})"


def _limits(trained: Mapping[str, Artefact]) -> list[str]:
    return [
        "## Limits",
        "",
        f"- {trained[''].values['tokens'] / 1e6:.0f} million tokens are very few: the models know words and phrases,",
        "  not facts",
        "- what a language is written about differs: es, ja, ru, tr, id and ko are mostly technical documentation, ar,",
        "  hi and fr general sentences; draw conclusions about languages from parallel text only",
        "- one training seed each; bytes a character differ by script, so bits per byte compare models, not languages",
    ]
