# make demo   the main job on a trained network, from set-up to a verified Lava run
# make test   lint, types and the whole test suite
# make bench  speed and memory beside what one would use instead; docs/performance.md
# Both do all the set-up that they need and are quick where nothing changed.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2

# Recorded outputs of the original systems, for tests that skip without them.
export PSPIKE_SHARED ?= $(abspath $(wildcard ../shared))

# The first Python >= 3.11 that runs; set PYTHON=... to choose another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo test bench lint types pytest release-check install lava zoo zoo-page docs conformance clean

demo: lava
	$(BIN)/pspike-export models/zoo/p_spikessm_digits.pt --target lava --out build/digits --force

test: lint types pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy follows an installed package, so a plain copy is installed for it.
types: $(STAMP)
	@rm -rf build/types build/lib
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml \
		--cache-dir ../../.mypy_cache --package pspike_deploy

# The tests run Lava in both kinds of environment, with .net files in both. Workers with one thread each do not wait for each other.
pytest: $(STAMP)
	$(BIN)/pspike lava setup --with netx --quiet
	$(BIN)/pspike lava setup --way shim --with netx --quiet
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) -q

# What takes too long for every change: false alarms over 200 seeds, every planted fault.
release-check: $(STAMP)
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) -q -m release

# About ten minutes; the machine should have nothing else to do.
bench: lava
	mkdir -p benchmarks/results
	$(BIN)/python -m pytest benchmarks -q -p no:xdist -p no:cacheprovider \
		--benchmark-json=benchmarks/results/latest.json --benchmark-disable-gc
	$(BIN)/python -m benchmarks.strip benchmarks/results/latest.json
	$(BIN)/python -m benchmarks.table benchmarks/results/latest.json docs

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "pspike-deploy needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

lava: $(STAMP)
	$(BIN)/pspike lava setup --quiet

# Train the networks of the zoo again (a few minutes); overwrites checkpoints, fine-tuned graphs and cards.
# With FSDD=..., your copy of the Free Spoken Digit Dataset, that of spoken digits, too (half an hour).
# Those of MNIST and ListOps take hours: see docs/guides/zoo.md.
zoo: $(STAMP)
	for name in p_spikessm_digits p_spikessm_digits_linear; do \
		$(BIN)/pspike train $$name --force && \
		$(BIN)/pspike finetune models/zoo/$$name.pt --weight-bits 4 --out models/zoo/$$name-w4.nir --force && \
		$(BIN)/pspike card models/zoo/$$name.pt --finetuned models/zoo/$$name-w4.nir || exit 1; done
	for name in linoss_digits spiking_ssm_digits; do \
		$(BIN)/pspike train $$name --force && $(BIN)/pspike card models/zoo/$$name.pt || exit 1; done
	$(if $(FSDD),$(BIN)/pspike train silif_spoken_digits --data $(FSDD) --held-out-speakers --force)
	$(if $(FSDD),$(BIN)/pspike card models/zoo/silif_spoken_digits.pt --data $(FSDD))

# The table of the zoo in its guide, from the cards.
zoo-page: $(STAMP)
	$(BIN)/python -m pspike_deploy.report.zoo models/zoo docs/guides/zoo.md

# Generated pages and the picture in the README, from the code and a run of the demo.
docs: demo zoo-page
	$(BIN)/python -m pspike_deploy.graph.describe docs/dialect.md
	$(BIN)/python -m pspike_deploy.report.semantics_page docs/semantics.md
	$(BIN)/python -m pspike_deploy.report.reference docs build/digits/summary.json
	$(BIN)/python -m pspike_deploy.report.power_tables docs/verification.md
	$(BIN)/python -m tests.report_picture build/digits/report.html docs/report.png
	$(BIN)/python -m pspike_deploy.report.target_tables docs/targets.md
	$(BIN)/python -m pspike_deploy.report.energy_page docs/energy.md
	$(BIN)/python -m pspike_deploy.report.reading_tables docs/guides/foreign-nir.md
	$(BIN)/python -m tests.format_tables
	$(BIN)/python -m tests.diagonal_table
	$(BIN)/python -m tests.noise_table
	rm -rf build/sweep
	$(BIN)/pspike sweep models/zoo/p_spikessm_digits.pt --ssm-states 16,12,8 --out build/sweep --quiet
	$(BIN)/python -m pspike_deploy.report.sweep build/sweep docs/guides/sweep.md
	$(if $(wildcard $(PSPIKE_SHARED)/data/fsdd.npz),$(BIN)/python -m tests.weights_table)
	$(if $(wildcard $(PSPIKE_SHARED)/data/fsdd.npz),$(BIN)/python -m tests.energy_table)

# What other readers of NIR compute from our files, measured; environments of about 1 GB each.
conformance: $(STAMP)
	@mkdir -p build
	$(BIN)/pspike conformance --out build/conformance.json; status=$$?; \
	$(BIN)/python -m pspike_deploy.conformance.table build/conformance.json docs/conformance.md && exit $$status

clean:
	rm -rf $(VENV) build *.egg-info
