# Everything a fresh machine with Python 3.11 and a package registry needs; each target does its own set-up.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK := docker/requirements/cpu.txt
BROWSER_LOCK := docker/requirements/browser.txt
PACKAGES := $(VENV)/.packages
PROJECT := $(VENV)/.project
BROWSER := $(VENV)/.browser
WHEEL := .cache/wheel
TRITON := .cache/triton
SBOM := .cache/sbom
SBOM_LOCK := docker/requirements/sbom.txt
CYCLONEDX = $(SBOM)/bin/cyclonedx-py
IMAGE_SBOM = docker run --rm --interactive --network none --entrypoint python3 $(IMAGE) - $(IMAGE) <docker/image_sbom.py
# All tests run in two processes. A few start sooner in one.
WORKERS = $(if $(ARGS),0,2)
PARALLEL = $(if $(filter-out 0,$(WORKERS)),-p tests.support.file_scheduler -n $(WORKERS))
CYCLONEDX_OPTIONS = --pyproject pyproject.toml --spec-version 1.6 --output-reproducible --output-file

.PHONY: help install serve test checks sbom browser lint format clean

help:
	@echo "make serve    answer questions on http://127.0.0.1:8000 with the bundled checkpoint"
	@echo "make test     run the tests (ARGS='-k name' selects, WORKERS=2 sets the number of processes)"
	@echo "make checks   install what tests of docker/, of FHIR and of Ray would otherwise be skipped without"
	@echo "make sbom     write CycloneDX bills of materials of the locks and of .venv to .cache/bom (IMAGE=NAME: and of an image)"
	@echo "make browser  run the page's tests in a real browser; needs a Chromium on the machine"
	@echo "make lint     formatting, style, import direction, types of the built wheel"
	@echo "make format   apply formatting"
	@echo "make clean    remove the virtual environment and caches"

serve: $(PROJECT)
	@echo "starting; the log's last line will be \"ready\" with the addresses"
	exec $(BIN)/python -m medmoe.server

# Some tests ask checkers that `make checks` puts there.
test: $(PROJECT)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest $(PARALLEL) $(ARGS)

checks: $(PROJECT) $(CYCLONEDX)
	$(PIP) --no-deps --requirement docker/requirements/checks.txt --requirement docker/requirements/ray.txt
	[ -d $(TRITON)/triton ] || $(PIP) --no-deps --target $(TRITON) --requirement docker/requirements/gpu-path.txt

sbom: $(PROJECT) $(CYCLONEDX)
	mkdir -p .cache/bom
	for lock in serve-cpu train cpu; do \
	    $(CYCLONEDX) requirements $(CYCLONEDX_OPTIONS) .cache/bom/$$lock.cdx.json docker/requirements/$$lock.txt || exit; \
	done
	$(CYCLONEDX) environment $(CYCLONEDX_OPTIONS) .cache/bom/environment.cdx.json $(BIN)/python
	$(if $(IMAGE),$(IMAGE_SBOM) >.cache/bom/$(subst /,-,$(subst :,-,$(IMAGE))).cdx.json)

$(CYCLONEDX): $(SBOM_LOCK)
	$(PYTHON) -m venv --clear $(SBOM)
	$(SBOM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $(SBOM_LOCK)
	@touch $@

browser: $(BROWSER)
	$(BIN)/python -m pytest $(PARALLEL) tests/browser $(ARGS)

lint: $(PROJECT)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --config .importlinter.toml
	rm -rf $(WHEEL) build
	$(PIP) --no-deps --no-build-isolation --no-compile --target $(WHEEL) .
	MYPYPATH=$(WHEEL) $(BIN)/mypy --cache-dir .cache/mypy -p medmoe.client -p medmoe.model -p medmoe.server -p medmoe.training

format: $(PROJECT)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(PROJECT)

# torch comes first and with what it needs: a CPU build needs little, the registry's own brings its CUDA libraries.
# Without bytecode every process of the engine would compile while it starts. pip would compile on one core only. What
# does not compile are templates, which pip passes over too.
$(PACKAGES): $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is no Python 3.11: install it, or name it, as in make serve PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@echo "installing torch, for a minute or more"
	$(PIP) --no-compile --constraint $(LOCK) torch
	@echo "installing vLLM and $$(grep -c == $(LOCK)) other packages, for some minutes"
	$(PIP) --no-compile --no-deps --requirement $(LOCK)
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

$(PROJECT): $(PACKAGES) pyproject.toml
	@echo "installing medmoe itself"
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# 165 MB that serving does not need.
$(BROWSER): $(PROJECT) $(BROWSER_LOCK)
	$(PIP) --no-deps --requirement $(BROWSER_LOCK)
	@touch $@

clean:
	rm -rf $(VENV) .cache build *.egg-info
