"""The geometry of ordered words in a language model: days, months and numbers, each against its own null.

    python examples/ordered_embeddings.py                             # zoo:atlas
    python examples/ordered_embeddings.py gpt2                        # a Hub id or a local folder
    python examples/ordered_embeddings.py gpt2 --site blocks.3.resid_post

Each word is read alone after what the tokenizer puts at the start (models that also put a token at the end, such as
BERT, are not meant). At `embed` a word of several tokens is the mean of their
embeddings; at any other site it is the state of its last token. Days and months are cycles, so the Fourier planes say
more of them than a rank correlation; numbers have their decimal period, and a helix needs enough of them. A word that
the tokenizer splits shares its pieces with others (12 and 13 share a 1): that is spelling, and nothing here removes it.
zoo:atlas knows only countries and cities; what it shows is spelling.
"""

import argparse

import numpy as np

from microtome import Model, run
from microtome.measures.fourier_planes import fourier_planes
from microtome.measures.geometry import order_geometry
from microtome.measures.helix import helix_evidence

WORDS = {
    "days": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "months": "January February March April May June July August September October November December".split(),
    "numbers": [str(n) for n in range(100)],
}
CYCLES = ("days", "months")


def states(model: Model, words: list[str], site: str) -> tuple[np.ndarray, int]:
    """Return one vector for each word, [words, d], and how many of the words are split into several tokens."""
    start = len(model.tokenizer("")["input_ids"])
    batch = model.batch([f" {word}" for word in words])
    found = run(model, batch, read=site, logits="none")[site].detach().double().cpu().numpy()
    lengths = batch.mask.sum(1).cpu().numpy() - start
    rows = [x[-n:].mean(0) if site == "embed" else x[-1] for x, n in zip(found, lengths, strict=True)]
    return np.stack(rows), int((lengths > 1).sum())


def describe(name: str, x: np.ndarray, split: int, seed: int) -> None:
    """Print what the nulls leave of an order."""
    rng = np.random.default_rng(seed)
    order, cyclic = np.arange(len(x)), name in CYCLES
    found = order_geometry(x, order, rng=rng, cyclic=cyclic)
    first, near = found.spearman[0], found.neighbours
    shares = ", ".join(f"{t.value.estimate:.2f}{'' if t.p <= 0.05 else ' (chance)'}" for t in found.explained[:3])
    print(f"{name}: {len(x)} words, {split} of them split into several tokens")
    print(f"  share of variance of PC1-3      {shares}")
    print(f"  Spearman of PC1 with the order  {first.value.estimate:+.2f}, p {first.p:.3f}")
    print(f"  neighbours / any two words      {near.value.estimate:.2f}, p {near.p:.3f}")
    if cyclic:
        planes = fourier_planes(x, rng=rng)
        best = int(planes.share.argmax()) + 1
        print(f"  strongest Fourier plane         {best} turns, {planes.share.max():.2f}, p {planes.p[best - 1]:.3f}")
    else:
        print(f"  {helix_evidence(found.scores[:, :3], order, rng=rng).verdict}")


def main() -> None:
    """Read the command line and describe each kind of word."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="zoo:atlas", help="zoo:NAME, a Hub id or a folder")
    parser.add_argument("--site", default="embed", help="where to read, such as blocks.3.resid_post")
    parser.add_argument("--seed", type=int, default=0, help="of shuffles and resamples")
    options = parser.parse_args()
    model = Model.load(options.model)
    for name, words in WORDS.items():
        describe(name, *states(model, words, options.site), options.seed)


if __name__ == "__main__":
    main()
