# Every target works on a fresh machine with Python 3.10 or newer (with pip and venv) and make. The environment is made
# once in .venv and again when pyproject.toml changes.

PYTHON ?= python3
JOBS ?= 2
# More arguments for pytest: make test ARGS="-k nonce -x"
ARGS ?=
# How long each target of the coverage-guided hunt runs.
FUZZ_SECONDS ?= 30

VENV := .venv
BIN := $(VENV)/bin
DIST := dist
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip --quiet

# What runs for minutes, needs a runtime or prints tables has a target of its own.
QUICK := not exhaustive and not fuzz and not soak and not oci and not vm and not interop and not benchmark

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test lint format types layers exhaustive mutants fuzz soak soak-fleet oci vm interop bench guest-layer sbom man docs catalogue dist clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "nvattest needs Python 3.10 or newer; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@$(PIP) install 'pip>=22.3'
	@touch $@

$(VENV)/.runtime: pyproject.toml | $(VENV)/.made
	$(PIP) install --editable .
	@touch $@

# The development set-up holds the run-time set-up, so it counts for both.
$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.runtime

$(VENV)/.docs: pyproject.toml | $(VENV)/.made
	$(PIP) install --editable '.[docs]'
	@touch $@ $(VENV)/.runtime

demo: $(VENV)/.runtime ## attest a simulated node, step by step
	$(BIN)/nvattest attest --simulate
	@printf '%s\n' '' 'Next, with . $(BIN)/activate:' \
		'  nvattest attest --simulate hopper-1                               one GPU, every check' \
		'  nvattest attest --simulate --fault gpu3:measurement=9             what a failure looks like' \
		'  nvattest attest --simulate --fault gpu3:measurement=9 --explain   what it means, what to do' \
		'  nvattest simulate --list                                          all that can be wrong'

# The tests start hundreds of programs: without byte code each of them would compile the package again. Almost half of
# their time is waiting, for limits of time and for other processes: two workers fill one core.
test: $(VENV)/.dev ## the tests of every change, in a few minutes at most
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $$((2 * $(JOBS))) --dist worksteal -m "$(QUICK)" $(ARGS)

lint: $(VENV)/.dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev ## let ruff write the format
	$(BIN)/ruff format .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

layers: $(VENV)/.dev ## import direction, sans-IO below level 6, the public surface
	$(BIN)/pytest tests/unit/test_layering.py tests/unit/test_public_surface.py $(ARGS)

exhaustive: $(VENV)/.dev ## every bit and every length instead of a sample, and what refused it
	$(BIN)/pytest -n $(JOBS) -rP -m exhaustive $(ARGS)

mutants: $(VENV)/.dev ## a seeded sample of small faults in the deciding modules: which does no test notice?
	nice -n 10 $(BIN)/python tests/mutation/mutants.py $(ARGS)

# atheris is installed here and not with the rest: it has no wheel for every Python, and nothing else needs it.
fuzz: $(VENV)/.dev ## long random hunts: coverage-guided (FUZZ_SECONDS for each target), then by grammar
	$(PIP) install 'atheris>=2.3'
	$(BIN)/python tests/attack/fuzz/campaign.py --seconds $(FUZZ_SECONDS)
	$(BIN)/pytest -n $(JOBS) -m fuzz $(ARGS)

soak: $(VENV)/.dev ## long runs and fleets
	$(BIN)/pytest -m soak $(ARGS)

soak-fleet: $(VENV)/.dev ## 10,000 different GPUs through examples/fleet.md, with kills, and what it costs
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -s -m soak tests/integration/test_fleet_soak.py $(ARGS)

oci: $(VENV)/.dev ## the hook under real container runtimes (runc and crun; root)
	@for runtime in runc crun; do command -v $$runtime >/dev/null || missing="$$missing $$runtime"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing; \
	elif [ -n "$$missing" ]; then echo "make oci needs$$missing" >&2; exit 1; fi
	$(BIN)/pytest -m oci $(ARGS)

# The kernel is extracted and never installed. Everything is emulated, so it needs no /dev/kvm.
vm: $(VENV)/.dev build/vm/root ## the hook in a real virtual machine (QEMU; root the first time)
	$(BIN)/pytest -n $(JOBS) -m vm $(ARGS)

build/vm/root:
	@tools="qemu-system-x86 busybox-static squashfs-tools cpio zstd"; \
	command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] || { echo "make vm needs $$tools and a kernel below $@: it gets them as root on Debian" >&2; exit 1; }; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$tools
	rm -rf build/vm && mkdir -p build/vm
	cd build/vm && apt-get download -qq "$$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')"
	dpkg-deb -x build/vm/linux-image-*.deb build/vm/new && mv build/vm/new $@

interop: $(VENV)/.dev ## NVIDIA's Python packages, monitors and regorus, from the index, in simulated worlds
	$(BIN)/python tests/interop/peers.py
	$(BIN)/pytest -n $(JOBS) -m interop $(ARGS)

bench: $(VENV)/.dev ## print the tables of time and memory, NVIDIA's Python packages beside ours
	$(BIN)/pytest -q -s -m benchmark tests/benchmarks $(ARGS)
	$(BIN)/python tests/benchmarks/compare_peers.py

guest-layer: $(VENV)/.runtime ## the self-contained hook for a guest image, in dist/
	@test -f examples/guest-layer/build.py || { echo "examples/guest-layer/build.py is missing from this checkout" >&2; exit 1; }
	$(BIN)/python examples/guest-layer/build.py --output $(DIST)

# A second environment holds what users install and nothing else, so that the list names no development tool.
sbom: $(VENV)/.dev ## the bill of materials of an installation (CycloneDX), in dist/
	@mkdir -p $(DIST) build
	rm -rf build/sbom && $(PYTHON) -m venv --without-pip build/sbom
	$(PIP) --python build/sbom/bin/python install .
	$(PIP) install 'cyclonedx-bom>=5'
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file $(DIST)/nvattest.cdx.json build/sbom/bin/python

man: $(VENV)/.runtime ## man pages from the parsers, in dist/man
	$(BIN)/python -m nvattest.cli.manual $(DIST)/man

# The site reads nothing from a network. What is wrong in a page or a docstring ends it.
docs: $(VENV)/.docs ## the site of all documents with the API, in build/docs/html
	$(BIN)/python examples/docs/build.py build/docs

catalogue: $(VENV)/.runtime ## write examples/CATALOGUE.md and examples/architecture.svg again
	$(BIN)/python examples/docs/picture.py
	$(BIN)/python -c 'from nvattest.report.catalogue import DOCUMENT, markdown; open(DOCUMENT, "w", encoding="utf-8").write(markdown())'

dist: $(VENV)/.dev ## wheel and source distribution, in dist/
	rm -f $(DIST)/nvattest-*.whl $(DIST)/nvattest-*.tar.gz
	$(BIN)/python -m build --outdir $(DIST)

clean: ## remove everything that these targets made
	rm -rf $(VENV) $(DIST) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
