"""What the report shows, in the order in which a reader would ask for it."""

from microtome.records import Record
from microtome.studies.multilingual.analysis_views import analysis_views
from microtome.studies.multilingual.building_views import building_views, plan_view, thesis_views
from microtome.studies.multilingual.config import MultilingualConfig
from microtome.studies.multilingual.evaluation_views import (
    accuracy_table,
    accuracy_view,
    agreement_view,
    bits_table,
    bits_view,
    published_view,
)
from microtome.studies.multilingual.sources import parallel_source
from microtome.studies.multilingual.tokenizing import tokenization_view

__all__ = ["views"]


def views(record: Record, config: MultilingualConfig) -> list[dict]:
    """Return the views of a run, those of the stages that it has."""
    held = record.tables
    scores = [bits_view(record), bits_table(record)] if "bits" in held else []
    scores += [accuracy_view(record), accuracy_table(record)] if "accuracy" in held else []
    scores += [tokenization_view(record)] if "tokens" in held else []
    scores += [agreement_view(record)] if "agreement" in held else []
    return [
        _question(record, config),
        *thesis_views(record),
        *scores,
        *analysis_views(record),
        *([plan_view(record)] if config.builds else []),
        *building_views(record),
        published_view(record),
    ]


def _question(record: Record, config: MultilingualConfig) -> dict:
    lines = []
    if config.analyses:
        folder, _ = parallel_source(config)
        text = f"the aligned lines of {folder}" if folder else "the embedded parallel sentences"
        lines.append(
            f"Analysed: {config.model}, {record.value('model_blocks')} blocks of width {record.value('model_width')}, "
            f"{record.value('model_parameters'):,} parameters, in {record.value('model_languages')} languages, on "
            f"{text}. Every language says the same there, so that languages differ in nothing but language; half of "
            "the sentences find, the other half test. Beside every number: an untrained twin, shuffled languages or "
            "matched random neurons."
        )
        if not folder:
            lines.append("The embedded sentences are simple: give --parallel FOLDER for conclusions about real text.")
    if config.plan_only:
        lines.append("Nothing was trained: the recipe was counted on the meta device and the job written (`job/`).")
    elif config.builds:
        lines.append(
            f"Built: a model by the recipe `{config.builds}`, from raw text to preferences, whose artefacts lie beside "
            "this record, each with a manifest of what made it."
        )
    return {"kind": "text", "title": "What was asked", "caption": "\n\n".join(lines)}
