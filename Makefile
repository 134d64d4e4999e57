# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

.PHONY: demo test check fast bench docs lock clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --upgrade pip
	$(PY) -m pip install -q "torch==2.13.0"
	$(PY) -m pip install -q -c constraints.txt -e ".[dev]"
	touch $(STAMP)

demo: $(STAMP)                ## the main job on the model that comes with the package; ends with the path of its report
	$(VENV)/bin/microtome run recall --open

test: $(STAMP) check          ## everything the gate runs
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2

fast: $(STAMP)                ## the tests that take about a minute
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 -m "not slow"

check: $(STAMP)               ## style
	$(PY) -m ruff check src tests benchmarks
	$(PY) -m ruff format --check src tests benchmarks

bench: $(STAMP)               ## beside the peers, each in an environment of its own; more than an hour on a quiet machine
	$(PY) -m benchmarks.run

docs: $(STAMP)                ## the public names, from their docstrings, into site/
	$(PY) -m pip install -q -c constraints.txt -e ".[docs]"
	$(PY) -m pdoc --docformat google --output-directory site microtome

lock: $(STAMP)                ## write down the versions installed now
	$(PY) -m pip freeze --exclude-editable | grep -v '^torch==' > constraints.txt

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis site
