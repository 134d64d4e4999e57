"""Engine: run a model with reads and edits; plan and execute sweeps of edits."""

from microtome.engine.edit import Add, Constant, Custom, Edit, From, Scale, Zero
from microtome.engine.plan import Plan
from microtome.engine.run import Run, run
from microtome.engine.sweep import SweepResult, plan, sweep

__all__ = [
    "Add",
    "Constant",
    "Custom",
    "Edit",
    "From",
    "Plan",
    "Run",
    "Scale",
    "SweepResult",
    "Zero",
    "plan",
    "run",
    "sweep",
]
