"""Nuclear tables: binding energies and what follows from them, to train a model on and read its physics back.

The way through: `read_table("ame2020.csv")` (or an address; or `theory_table()`, which needs no file) gives a table;
`tasks(table, ["binding", "sn"])` what is to be predicted; `split(found, "nucleus")` what of it is held out; and
`leaks(...)` whether the numbers held out can be computed from those in training. All energies are in MeV.
"""

from microtome.data.nuclear.compact import write_compact
from microtome.data.nuclear.constants import MAGIC, label
from microtome.data.nuclear.energies import DIFFERENCES, Difference, derive
from microtome.data.nuclear.files import FORMATS, read_table
from microtome.data.nuclear.formulas import BW2, SEMF, TERMS, Formula, Terms, promiscuity, terms_named
from microtome.data.nuclear.leakage import Leak, Leaks, leaks
from microtome.data.nuclear.spins import SpinParity, parse_spin_parity
from microtome.data.nuclear.splits import SPLITS, Split, Unseen, split, unseen
from microtome.data.nuclear.table import Column, NuclearTable, Provenance
from microtome.data.nuclear.tasks import PAPER_TASKS, TASKS, Scaling, Task, TaskTable, standardise, tasks
from microtome.data.nuclear.theory import theory_table, twin

__all__ = [
    "BW2",
    "DIFFERENCES",
    "FORMATS",
    "MAGIC",
    "PAPER_TASKS",
    "SEMF",
    "SPLITS",
    "TASKS",
    "TERMS",
    "Column",
    "Difference",
    "Formula",
    "Leak",
    "Leaks",
    "NuclearTable",
    "Provenance",
    "Scaling",
    "SpinParity",
    "Split",
    "Task",
    "TaskTable",
    "Terms",
    "Unseen",
    "derive",
    "label",
    "leaks",
    "parse_spin_parity",
    "promiscuity",
    "read_table",
    "split",
    "standardise",
    "tasks",
    "terms_named",
    "theory_table",
    "twin",
    "unseen",
    "write_compact",
]
