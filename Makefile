# Two commands do all the set-up on a fresh machine, `make train` and `make test`; `make serve` serves what was trained.
# PYTHON=python3.12 make ... takes another interpreter; ARGS="trainer.max_epochs=1" goes to train.py.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
CONFTESTS := $(wildcard tests/*/conftest.py tests/*/*/conftest.py)  # modules of one name: each has a look of its own

.PHONY: train serve test test-long test-all lint types page no-page check docs clean

train: $(VENV)/.installed
	$(BIN)/python train.py data=ttH model=dnn $(ARGS)

serve: $(VENV)/.serving
	$(BIN)/python -m serve models --publish ttH=outputs/ttH_dnn/latest/bundle $(ARGS)

# Three lanes: the fast one covers every module, the long one has what takes more than half a minute, the last one all cases.
# Tests of the long one often wait, for servers and for each other.
test: $(VENV)/.tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not long and not matrix" $(ARGS)

test-long: $(VENV)/.tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 -m "long and not matrix" $(ARGS)

test-all: $(VENV)/.tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

check: lint types $(if $(shell command -v npm 2>/dev/null),page,no-page)

docs: $(VENV)/.tested
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: $(VENV)/.tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.tested
	$(BIN)/mypy
	for file in $(CONFTESTS); do $(BIN)/mypy $$file || exit 1; done

# The JavaScript of the server's page: lint and types, by tools that nothing else needs.
PAGE := .ci/page/node_modules
page: $(PAGE)/.installed
	$(PAGE)/.bin/eslint --config .ci/page/eslint.config.js --max-warnings 0 src/serve/page/static
	$(PAGE)/.bin/tsc --project .ci/page

no-page:
	@echo "npm is not installed: the JavaScript of the server's page was not checked"

$(PAGE)/.installed: .ci/page/package.json .ci/page/package-lock.json
	npm ci --prefix .ci/page --no-audit --no-fund --silent
	touch $@

# torch comes first and alone: a later, looser requirement is then met by it and pulls no other build.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $$(grep '^torch==' constraints.txt)
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[plot,tensorboard]"
	touch $@

$(VENV)/.serving: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[plot,tensorboard,serve]"
	touch $@

$(VENV)/.tested: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[plot,tensorboard,serve,remote,cluster,dev]"
	touch $@

clean:
	rm -rf $(VENV) $(PAGE) build dist .pytest_cache .mypy_cache .ruff_cache
