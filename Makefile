# make demo | test | lint | clean. Needs Python >= 3.11 and nothing else; everything goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-audit
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test picture lint format clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.run
	$(BIN)/redsam audit lab-b --preset quick --out $(OUT)

# One process a core, one thread each.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

# The picture of the README.
picture: $(VENV)/.run
	$(BIN)/redsam attack src/redsam/data/demo/coins.jpg --model lab-b --box 305,16,365,72 --out build/picture
	mkdir -p docs
	$(BIN)/python -c "from PIL import Image; Image.open('build/picture/figure.png').convert('RGB').save('docs/attack.webp', quality=80)"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OUT) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
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
