"""Interventions from outside: a calm sentence before every prompt, and experts that argue over the next token."""

from microtome.core.seeds import derive
from microtome.edits.dexperts import DExperts, dexperts
from microtome.studies.toxicity.arm import Arm
from microtome.studies.toxicity.methods.family import Family, Found, Maker
from microtome.studies.toxicity.subject import Subject
from microtome.training.tuning import fine_tuned

__all__ = ["FAMILIES"]

OUTSIDE = "decoding or weights"

PRE_PROMPTS = {"parrot": "anna felt patient all day .", "": "The following text is polite, kind and respectful.\n"}


def _pre_prompt(subject: Subject, found: Found) -> Family:
    """A prefix is there or it is not, so its strength is 0 or 1."""
    text = PRE_PROMPTS["parrot" if subject.config.parrot else ""]
    ids = subject.model.tokenizer(text, add_special_tokens=False)["input_ids"]

    def make(prefix: tuple[int, ...], strength: float) -> Arm:
        return Arm(subject.model, prefix=prefix if round(strength) else ())

    return Family("pre_prompt", "pre-prompt", OUTSIDE, {f"“{text.strip()}”": tuple(ids)}, make, 1.0, whole=True)


def _dexperts(subject: Subject, found: Found) -> Family:
    """Two copies of the model, one tuned on texts of label 0, one on texts of label 1; the whole nucleus is kept."""
    rows = subject.sources.halves["discovery"].rows
    good, bad = (
        fine_tuned(
            subject.model,
            subject.rows([r.text for r in rows if r.label == label]),
            steps=subject.config.arms.tune_steps,
            seed=derive(subject.config.seed, "expert", label),
        )
        for label in (0, 1)
    )

    def make(_: object, strength: float) -> Arm:
        if strength == 0:
            return Arm(subject.model)
        return Arm(
            subject.model,
            rules=(DExperts(good, bad, strength, 1.0),),
            on_texts=lambda batch: [dexperts(good, bad, batch, alpha=strength, top_p=1.0)],
        )

    return Family("dexperts", "DExperts", OUTSIDE, {"two experts": None}, make, 4.0, source="arXiv 2105.03023")


FAMILIES = {"pre_prompt": Maker(_pre_prompt), "dexperts": Maker(_dexperts, needs="trl")}
