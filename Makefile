# make setup   .venv with everything in it          make demo    a real PBX, a CRM, the daemon, and calls between them
# make run     the daemon on its embedded database  make test    the whole suite
# make check   lint, types, layers                  make bench   the figures
# make chaos   every fault with the account of every call; ROWS="F3-lines F13" SCALE=0.2 KILLS=20 for less, WRITE=docs/promises.md keeps it      make soak   MINUTES=30
# make screenshots   the README's pictures, and all pages into build/screenshots
PY := .venv/bin/python

.PHONY: setup environment run demo check test bench bench-quick bench-check bench-node chaos soak sync-storm screenshots lab-16 lock widget interop-node promtool fuzz audit clean

setup: environment
	@$(PY) tools/compile.py
	@$(PY) tools/templates.py

environment:
	@python3 tools/setup.py

run: setup
	@.venv/bin/vochid run

demo: setup
	@.venv/bin/vochid demo

check: environment
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports

test: check setup interop-node promtool
	@$(PY) -m pytest -n 2 --dist loadgroup

bench: setup bench-node
	@$(PY) -m benchmarks

# Whether everything of it runs, in a few minutes.
bench-quick: setup bench-node
	@$(PY) -m benchmarks --quick

# Fails when a path lost more than 20 % against the stored ratios to the floor of the same run.
bench-check: setup
	@$(PY) -m benchmarks --check

# What docs/promises.md shows. As root the disk of the row about full disks can be mounted.
chaos: setup
	@$(PY) -m lab.chaos $(ROWS) --kills $(or $(KILLS),200) --scale $(or $(SCALE),1) $(if $(WRITE),--write $(WRITE))

soak: setup
	@$(PY) -m lab.chaos.soak --minutes $(or $(MINUTES),30)

screenshots: setup
	@$(PY) -m lab.screenshots --docs
	@$(PY) -m lab.screenshots

# The live tests on Asterisk 16 (Debian bullseye), while its packages are still on the mirrors.
lab-16: setup
	@LAB_ASTERISK=16 $(PY) -m pytest tests/live

# Bitrix24's sync at length: 10,000 contacts and 5,000 deals both ways within the portal's budget, half an hour.
sync-storm: setup
	@$(PY) -m lab.sync_storm

# The widget that amoCRM and Kommo accept as an archive.
widget: environment
	@mkdir -p build && $(PY) tools/pack_widget.py adapters/amocrm/widget build/vochid-amocrm-widget.zip

# Clients for node that tests/interop drives sandboxes with, where npm is there.
interop-node:
	@! command -v npm >/dev/null || test -d tests/interop/node/node_modules || npm install --prefix tests/interop/node --no-package-lock --no-audit --no-fund --silent

# Prometheus' rule checker from Debian's package, unpacked and not installed, for tests/unit/test_alert_rules.py.
promtool:
	@command -v promtool >/dev/null || test -x build/promtool || (mkdir -p build/prometheus && cd build/prometheus && \
	  (apt-get -qq download prometheus 2>/dev/null || (apt-get -qq update && apt-get -qq download prometheus 2>/dev/null)) && \
	  dpkg -x prometheus_*.deb . && cp usr/bin/promtool ..) || echo "promtool could not be fetched: one test is skipped"

# AMI clients for node that benchmarks run beside ours, where npm is there.
bench-node:
	@! command -v npm >/dev/null || test -d benchmarks/node/node_modules || npm install --prefix benchmarks/node --no-package-lock --no-audit --no-fund --silent

# A million spoiled inputs for the parsers of what strangers send; FUZZ=5000 for a shorter run.
fuzz: environment
	@FUZZ=$${FUZZ:-60000} $(PY) -m pytest -n 2 --timeout 0 tests/unit/test_fuzz.py

# Known holes in what is locked (asks PyPI's advisory service), and the bill of materials, build/sbom.json (CycloneDX).
audit: environment
	@$(PY) tools/sbom.py requirements.lock build/sbom.json
	@test -x build/audit/bin/pip-audit || (python3 -m venv build/audit && build/audit/bin/pip -q install pip-audit)
	@$(PY) tools/audit.py build/audit/bin/pip-audit requirements.lock

# After a change of dependencies in pyproject.toml.
lock: environment
	@$(PY) -m pip -q install uv && $(PY) -m uv pip compile pyproject.toml --extra dev --generate-hashes --no-header --no-annotate --python-version 3.11 -q -o requirements.lock

clean:
	@rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
