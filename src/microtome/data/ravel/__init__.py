"""RAVEL (arXiv 2402.17700): entity tables, what a model knows of them, and pairs that test one attribute at a time.

The way through: `load_ravel("data/ravel", "city")` (or `atlas_tables()`, or `synthetic_table([...])`) gives a table;
`build_instance(table, completions)` what a model knows of it (`gold_instance(table)` takes all as known); and
`draw_pairs(instance, target="Country", side="entity-test")` the pairs and what can be told with them.
"""

from microtome.data.ravel.atlas import atlas_tables
from microtome.data.ravel.defects import Balance, Defect, DefectReport, balance, find_defects
from microtome.data.ravel.download import download
from microtome.data.ravel.entailment import Entailed, EntailmentTable, entailment
from microtome.data.ravel.files import read_folder, types_in, write_folder
from microtome.data.ravel.hub import read_hub
from microtome.data.ravel.instance import Answer, Instance, Verdict, build_instance, gold_instance, keep_best
from microtome.data.ravel.matching import Match, Rule, match, rules_for
from microtome.data.ravel.pairing import POOLS, SIDES, Drawn, cap, draw_pairs, retarget
from microtome.data.ravel.power import Drawing, PowerReport, PowerRow
from microtome.data.ravel.prompts import Prompt, fill, last_token, prompts, spans
from microtome.data.ravel.records import RavelPairs, pairs_from_ravel
from microtome.data.ravel.synthetic import Planted, synthetic_table
from microtome.data.ravel.tables import ENTITY_TYPES, SPLITS, Entity, EntityTable, Template, WikiPrompt
from microtome.data.ravel.views import Loaded, cleaned, load_ravel

__all__ = [
    "ENTITY_TYPES",
    "POOLS",
    "SIDES",
    "SPLITS",
    "Answer",
    "Balance",
    "Defect",
    "DefectReport",
    "Drawing",
    "Drawn",
    "Entailed",
    "EntailmentTable",
    "Entity",
    "EntityTable",
    "Instance",
    "Loaded",
    "Match",
    "Planted",
    "PowerReport",
    "PowerRow",
    "Prompt",
    "RavelPairs",
    "Rule",
    "Template",
    "Verdict",
    "WikiPrompt",
    "atlas_tables",
    "balance",
    "build_instance",
    "cap",
    "cleaned",
    "download",
    "draw_pairs",
    "entailment",
    "fill",
    "find_defects",
    "gold_instance",
    "keep_best",
    "last_token",
    "load_ravel",
    "match",
    "pairs_from_ravel",
    "prompts",
    "read_folder",
    "read_hub",
    "retarget",
    "rules_for",
    "spans",
    "synthetic_table",
    "types_in",
    "write_folder",
]
