# make setup   .venv with everything in it          make demo    a real PBX, a CRM, the daemon, and calls between them
# make run     the daemon on its embedded database  make test    the whole suite
# make check   lint, types, layers                  make bench   the figures
# make screenshots   the README's pictures, and all pages into build/screenshots
PY := .venv/bin/python

.PHONY: setup environment run demo check test bench screenshots lab-16 lock widget interop-node sync-storm clean

setup: environment
	@$(PY) tools/compile.py

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

test: check setup interop-node
	@$(PY) -m pytest -n 2 --dist loadgroup

bench: setup
	@$(PY) -m benchmarks

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

# After a change of dependencies in pyproject.toml.
lock: environment
	@$(PY) -m pip -q install uv && $(PY) -m uv pip compile pyproject.toml --extra dev --generate-hashes --no-header --no-annotate --python-version 3.11 -q -o requirements.lock

clean:
	@rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
