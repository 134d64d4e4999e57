"""Microtome: a neuron-level interpretability workbench. Names are loaded when first used, so importing is cheap."""

import importlib

_HOMES = {
    "Edit": "microtome.engine.edit",
    "Add": "microtome.engine.edit",
    "Constant": "microtome.engine.edit",
    "Custom": "microtome.engine.edit",
    "From": "microtome.engine.edit",
    "Scale": "microtome.engine.edit",
    "Zero": "microtome.engine.edit",
    "Featurizer": "microtome.core.protocols",
    "Measure": "microtome.core.protocols",
    "Model": "microtome.models.model",
    "Record": "microtome.records.record",
    "Site": "microtome.core.site",
    "Study": "microtome.core.study",
    "Units": "microtome.core.units",
    "plan": "microtome.engine.sweep",
    "render": "microtome.reports.render",
    "run": "microtome.engine.run",
    "sweep": "microtome.engine.sweep",
}

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'microtome' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
