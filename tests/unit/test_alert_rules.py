"""The alert rules that ship: they ask only for what /metrics has, and promtool plays what each is for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY

from daemon.telemetry import metrics

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "systemd/prometheus-rules.yml"
PLAYED = Path(__file__).parent / "prometheus-rules.test.yml"
OF_PROMETHEUS = {"job", "instance", "le"}


def rules() -> list[dict[str, object]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def declared() -> dict[str, set[str]]:
    """Every name that a rule may ask for, with its labels."""
    found: dict[str, set[str]] = {"up": set(), "process_open_fds": set(), "process_max_fds": set()}
    for metric in vars(metrics).values():
        if hasattr(metric, "_labelnames"):
            endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(metric._type, ("",))
            found |= {metric._name + ending: set(metric._labelnames) for ending in endings}
    return found


def test_rules_ask_only_for_metrics_and_labels_that_there_are() -> None:
    known = declared()
    for rule in rules():
        text = str(rule["expr"])
        named = re.findall(r"\b(vochid_\w+|process_\w+|up)\b(?:\{([^}]*)\})?", text)
        assert named, rule
        labels: set[str] = set()
        for name, selected in named:
            assert name in known, f"{rule['alert']} asks for {name}"
            labels |= known[name]
            for label in re.findall(r"(\w+)\s*[=!]", selected):
                assert label in known[name] | OF_PROMETHEUS, f"{rule['alert']}: {name} has no label {label}"
        for grouped in re.findall(r"by \(([^)]*)\)", text):
            assert {one.strip() for one in grouped.split(",")} <= labels | OF_PROMETHEUS, rule["alert"]
        said = str(rule["annotations"])
        kept = {one.strip() for grouped in re.findall(r"by \(([^)]*)\)", text) for one in grouped.split(",")} or {"instance", "job"}
        assert set(re.findall(r"\$labels\.(\w+)", said)) <= kept, f"{rule['alert']} tells a label that it has dropped"


def test_what_can_go_wrong_has_a_metric_and_an_alert() -> None:
    asked = "\n".join(str(rule["expr"]) for rule in rules())
    for name in (
        "vochid_pbx_links", "vochid_record_seconds", "vochid_oldest_open_delivery", "vochid_delivery_attempts", "vochid_originates", "vochid_lookup_cache",
        "vochid_crm_breakers", "vochid_fastagi_seconds", "vochid_loop_lag",
    ):  # fmt: skip
        assert name in asked
        assert any(family.name.startswith(name) for family in REGISTRY.collect()), name


def test_every_alert_has_advice() -> None:
    advice = (ROOT / "docs/operation.md").read_text()
    for rule in rules():
        assert f"`{rule['alert']}`" in advice, rule["alert"]


def test_promtool_plays_them() -> None:
    promtool = shutil.which("promtool") or shutil.which(str(ROOT / "build/promtool"))
    if promtool is None:
        pytest.skip("promtool is not here: `make promtool` fetches it where Debian's mirror is reachable")
    for arguments in (("check", "rules", str(RULES)), ("test", "rules", str(PLAYED))):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
