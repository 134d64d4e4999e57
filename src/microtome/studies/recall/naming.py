"""What a reader sees for the codes that the tables hold; the codes stay in the data, where queries ask for them."""

__all__ = ["CELLS", "PARTS", "SETS", "SHORT"]

CELLS = {
    "recall": "recall: weights, 1 hop",
    "lookup": "lookup: passage, 1 hop",
    "latent_2hop": "latent: weights, 2 hops",
    "context_2hop": "reasoning: passage, 2 hops",
}
"""Cell -> its name, where the fact stands, and how many hops the question takes."""

SHORT = {code: name.partition(":")[0] for code, name in CELLS.items()}
"""Cell -> its name alone, where there is no room."""

SETS = {"recall": "without the recall set", "reasoning": "without the reasoning set"}
"""Set taken out -> the heading of its panel."""

PARTS = (
    "test: other countries than chose the sets, seen wording. unseen: other countries, unseen wording. transfer: "
    "unseen, with the same passage before the questions of all four cells."
)
"""What the parts are, for captions."""
