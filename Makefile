# Everything here runs in a private environment, .venv, made from the lock files in requirements/.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
FLAGSHIP := delivery-guarantees
SEED ?= 1
WORLDS ?= 400

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lab bench mutants worlds index lock clean

help:  ## this list
	@echo "make TARGET, where TARGET is one of:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.base  ## run the flagship scenario and say where its report lies
	$(BIN)/msgsim run $(FLAGSHIP)

test: $(VENV)/.dev  ## ruff, mypy and the whole test suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

lab: $(VENV)/.dev  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

bench: $(VENV)/.dev  ## run the benchmarks
	$(BIN)/python -m bench

mutants: $(VENV)/.dev  ## does the test suite notice each planted mistake?
	$(BIN)/python tests/mutants/run.py

worlds: $(VENV)/.dev  ## look for a random world that breaks a property: make worlds SEED=2 WORLDS=1000
	MSGSIM_WORLDS=$(WORLDS) $(BIN)/python -m pytest tests/properties/test_kafka.py tests/properties/test_rabbitmq.py \
		-n 2 --hypothesis-seed=$(SEED)

index: $(VENV)/.base  ## write scenarios/index.json anew (after a new title or question)
	$(BIN)/python -c "from sim.scenario import index; print(index.write_index(index.CHECKOUT))"

# The environment. A stamp is written when all is in place; while an install is under way there is no .whole, so
# that whatever an interrupted one left is thrown away by the next call.
define install
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("msgsim needs Python 3.11 or newer, $(PYTHON) is %d.%d: say make PYTHON=..." % v[:2])'
	@test -e $(VENV)/.whole || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $(VENV)/.whole
	@echo "Installing $(1) and msgsim into $(VENV), a minute or two ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(VENV)/.base $(VENV)/.whole
endef

$(VENV)/.base: requirements/base.txt pyproject.toml hatch_build.py
	$(call install,requirements/base.txt)

# The dev lock holds the base lock (compiled under it as a constraint), so it serves `make demo` too.
$(VENV)/.dev: requirements/base.txt requirements/dev.txt pyproject.toml hatch_build.py
	$(call install,requirements/dev.txt)
	@touch $(VENV)/.dev

# One version of everything on every Python and system, with hashes; see docs/decisions/0002-lock-file.md.
COMPILE = build/lock/bin/uv pip compile pyproject.toml --group build --quiet --upgrade --universal \
	--python-version 3.11 --fork-strategy fewest --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

lock: build/lock/.whole  ## resolve the newest dependencies into requirements/
	$(COMPILE) --output-file requirements/base.txt
	$(COMPILE) --extra dev --extra notebooks --extra hunt --constraint requirements/base.txt \
		--output-file requirements/dev.txt

build/lock/.whole: Makefile
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	touch $@

clean:  ## remove the environment, build products and caches; what runs wrote stays
	rm -rf $(VENV) build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
