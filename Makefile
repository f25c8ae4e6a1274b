# Two commands do all their own set-up: `make reproduce` and `make test`.

PYTHON  ?= python3
VENV    ?= .venv
PROFILE ?= fast
EXTRAS  := reproduce,train,onnx,test
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
OLD     := .venv-tflite-runtime
OPENCV  := $(shell sed -n 's/^opencv-python==\([^ ;]*\).*/\1/p' constraints.txt)

.PHONY: reproduce test lint format readme lab strip setup clean help

reproduce: $(READY)  ## run every notebook (PROFILE=smoke|fast|full) and make all tables and pictures
	$(BIN)/kp2d reproduce --profile $(PROFILE)

test: $(READY) $(OLD)/.ready  ## run the tests
	$(BIN)/python -m pytest

lint: $(READY)  ## check style and formatting of modules and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/kp2d readme --check

format: $(READY)  ## format modules and notebooks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

readme: $(READY)  ## fill the tables of README.md from results/
	$(BIN)/kp2d readme

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

strip: $(READY)  ## remove the outputs that JupyterLab has saved into the notebooks
	$(BIN)/jupyter nbconvert --clear-output --inplace --log-level=ERROR notebooks/*.ipynb

setup: $(READY)  ## make the virtual environment and install everything

# Reinstalls only when what is to be installed has changed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "kp2d needs Python 3.10 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "No virtual environment could be made; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@# opencv-python needs libGL, which servers often lack; the headless build is the same library without windows.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	  echo "opencv-python cannot be loaded here (no libGL?): using opencv-python-headless"; \
	  $(BIN)/python -m pip uninstall --quiet --yes opencv-python; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt opencv-python-headless==$(OPENCV); }
	@touch $@

# The runtime of older devices, which wants NumPy 1: an environment of its own, for the tests that compare the two.
$(OLD)/.ready: $(READY)
	@$(PYTHON) -m venv $(OLD)
	@$(OLD)/bin/python -m pip install --quiet --disable-pip-version-check 'numpy<2' tflite-runtime==2.14.0 2>/dev/null || { \
	  echo "tflite-runtime cannot be installed here (it stops at Python 3.11): tests that compare with it are skipped"; \
	  rm -rf $(OLD)/bin; }
	@touch $@

clean:  ## remove the virtual environments, made data and executed notebooks
	rm -rf $(VENV) $(OLD) data results/runs

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*##/\1\t/p' Makefile
