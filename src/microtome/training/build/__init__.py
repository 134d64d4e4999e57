"""Build a language model from raw text by a recipe, each stage an artefact: see `run.build`."""
