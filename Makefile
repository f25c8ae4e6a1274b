# Two commands do all their own set-up: `make reproduce` and `make test`.

PYTHON  ?= python3
VENV    ?= .venv
PROFILE ?= fast
EXTRAS  := reproduce,train
TOOLS   := $(EXTRAS),onnx,cluster,test
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
TESTED  := $(VENV)/.tested
LIGHT   := .venv-litert .venv-tflite-runtime
SOURCES := $(shell find kp2d -name "*.py") $(wildcard kp2d/pretrained/* kp2d/report/assets/* kp2d/report/assets/try/*)

.PHONY: reproduce report test coverage lint format readme lab strip setup dist clean help

reproduce: $(READY)  ## run every notebook (PROFILE=smoke|fast|full) and make all tables and pictures
	$(BIN)/kp2d reproduce --profile $(PROFILE)

report: $(READY)  ## make a web site of results, notebooks, pictures and matches
	$(BIN)/kp2d report --profile $(PROFILE)

test: $(TESTED) $(LIGHT:%=%/.ready)  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadscope

coverage: $(TESTED)  ## run the tests and say which lines they reach; fails below 90 %
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pytest-cov
	$(BIN)/python -m pytest -n 2 --dist loadscope --cov=kp2d --cov-report=term:skip-covered --cov-fail-under=90

dist: $(TESTED)  ## build what `pip install kp2d` gets, and check it
	BIN=$(BIN) .ci/dist

lint: $(TESTED)  ## check style and formatting of modules and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/kp2d readme --check

format: $(TESTED)  ## format modules and notebooks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

readme: $(READY)  ## fill the tables of README.md, results/README.md and docs/ from results/
	$(BIN)/kp2d readme

lab: $(READY)  ## open the notebooks in JupyterLab
	env -u MPLBACKEND $(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) \
	  --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

strip: $(READY)  ## remove the outputs that JupyterLab has saved into the notebooks
	$(BIN)/jupyter nbconvert --clear-output --inplace --log-level=ERROR notebooks/*.ipynb

setup: $(TESTED)  ## make the virtual environment and install everything

# Reinstalls only when what is to be installed has changed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "kp2d needs Python 3.10 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "No virtual environment could be made; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@$(call headless,$(VENV))
	@touch $@

# What tests, style and exports need on top (JAX, ONNX, a driver of browsers and more): 0.7 GB.
$(TESTED): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(TOOLS)]'
	@$(call headless,$(VENV))
	@touch $@

# What small devices have, each in an environment of its own: kp2d with one TFLite runtime and without TensorFlow.
.venv-litert/.ready: PACKAGES = -c constraints.txt '.[litert]'
.venv-tflite-runtime/.ready: PACKAGES = . 'numpy<2' tflite-runtime==2.14.0
.venv-%/.ready: $(READY) $(SOURCES)
	@rm -rf build && $(PYTHON) -m venv $(@D)
	@{ $(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(PACKAGES) && \
	  $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps . ; } 2>$(@D)/error || { \
	  tail -1 $(@D)/error; \
	  echo "$* cannot be installed here (tflite-runtime stops at Python 3.11): its tests are skipped"; \
	  rm -rf $(@D)/bin; }
	@test ! -d $(@D)/bin || $(call headless,$(@D))
	@touch $@

# opencv-python needs libGL, which servers often lack; the headless build is the same library without windows.
headless = $(1)/bin/python -c 'import cv2' 2>/dev/null || { \
	  echo "$(1): opencv-python cannot be loaded (no libGL?): using opencv-python-headless"; \
	  version=$$($(1)/bin/python -m pip list --format=freeze --disable-pip-version-check | sed -n 's/^opencv-python==//p'); \
	  $(1)/bin/python -m pip uninstall --quiet --yes opencv-python; \
	  $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps opencv-python-headless==$$version; }

clean:  ## remove the virtual environments, made data and executed notebooks
	rm -rf $(VENV) $(LIGHT) data results/runs

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*##/\1\t/p' Makefile
