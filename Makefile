# make demo | test | test-extras | docs | lint | clean. Needs Python >= 3.11 and nothing else; everything goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-audit
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-extras picture docs lint format clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.run
	$(BIN)/redsam audit lab-b --preset quick --out $(OUT)

# One process a core, one thread each.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

# The families that need timm, torchvision or ultralytics (AGPL-3.0), and the published weight files against the packages
# that write them, in an environment of their own: some 6 GB, with the torch that torchvision was built for.
EXTRAS ?= .venv-extras
EXTRAS_PIP := $(EXTRAS)/bin/python -m pip --disable-pip-version-check --quiet
test-extras: $(EXTRAS)/.made
	OMP_NUM_THREADS=1 $(EXTRAS)/bin/python -m pytest -q tests/models -m extras
	OMP_NUM_THREADS=1 $(EXTRAS)/bin/python -m pytest -q tests/models/test_conformance.py tests/models/test_loading.py \
		-k "mobilesam or edgetam or fastsam or sam3 or sam2 or torchvision"

# The picture of the README.
picture: $(VENV)/.run
	$(BIN)/redsam attack src/redsam/data/demo/coins.jpg --model lab-b --box 305,16,365,72 --out build/picture
	mkdir -p docs
	$(BIN)/python -c "from PIL import Image; Image.open('build/picture/figure.png').convert('RGB').save('docs/attack.webp', quality=80)"

# The pages of docs/ and a reference from the docstrings, as HTML; a gap or a dead link is an error.
docs: $(VENV)/.run
	$(BIN)/python docs/build.py build/docs

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(EXTRAS) $(OUT) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "redsam needs Python 3.11 or newer. Type: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# The stamps: installed again only when what is installed has changed.
$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -e . -c constraints.txt
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -e '.[dev]' -c constraints.txt
# torchattacks is one more oracle. Without its dependencies: it pins an old requests, and wants a torchvision that need
# not fit the torch at hand; what is compared uses neither.
	$(PIP) install --no-deps torchattacks -c constraints.txt
	@touch $@ $(VENV)/.run

# torch and torchvision in one step, so that they fit; where they do not, it is said here and not by strange tests.
# Without its dependencies what pins old ones or builds for a GPU: sam2 and what segment-anything-hq asks for.
$(EXTRAS)/.made: pyproject.toml
	$(PYTHON) -m venv $(EXTRAS)
	$(EXTRAS_PIP) install torch torchvision
	$(EXTRAS_PIP) install -e '.[mobilesam,edgetam,fastsam,lora]' \
		pytest hypothesis segment-anything hydra-core iopath setuptools
	SAM2_BUILD_CUDA=0 $(EXTRAS_PIP) install --no-deps --no-build-isolation segment-anything-hq sam2
	$(EXTRAS)/bin/python -c "import torch, torchvision; torchvision.ops.nms(torch.rand(1, 4), torch.rand(1), 0.5)"
	@touch $@
