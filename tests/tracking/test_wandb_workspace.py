"""The workspace that compares decoders reads keys that runs have. Nothing here asks the network."""

from __future__ import annotations

import json
import re
import sys

import pytest

from dlmlab.tracking import wandb_workspace
from tests.documented import DOCS


def panels(spec: dict) -> list[dict]:
    return [panel for section in spec["section"]["panelBankConfig"]["sections"] for panel in section["panels"]]


def call(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["wandb_workspace", *arguments])
    return wandb_workspace.main()


def test_charts_show_documented_keys_by_decoder(monkeypatch, capsys):
    assert call(monkeypatch, "lab/dlmlab", "--batch", "1", "64", "--print") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["entity"], found["project"]) == ("lab", "dlmlab")
    [runs] = found["spec"]["section"]["runSets"]
    assert runs["grouping"] == [{"section": "config", "name": "labels.value.decoder"}]
    bars = [panel["config"] for panel in panels(found["spec"]) if panel["viewType"] == "Bar Chart"]
    assert {each["groupBy"] for each in bars} == {"labels.value.decoder"}
    scatter = [panel["config"] for panel in panels(found["spec"]) if panel["viewType"] == "Scatter Plot"]
    shown = [metric for each in bars for metric in each["metrics"]]
    shown += [each[axis].removeprefix("summary:") for each in scatter for axis in ("xAxis", "yAxis")]
    assert "speedup/batch=64" in shown
    patterns = [re.escape(key).replace("…", ".+") for key in re.findall("`(.*?)`", DOCS.read_text(encoding="utf-8"))]
    assert [key for key in shown if not any(re.fullmatch(pattern, key) for pattern in patterns)] == []


def test_saving_sends_the_workspace_and_says_where_it_is(monkeypatch, capsys):
    from wandb_workspaces.workspaces import Workspace, internal

    monkeypatch.setattr(Workspace, "url", "https://wandb.example.org/lab/dlmlab?nw=abc")  # it asks the server for it
    sent = []

    def upsert(view):
        sent.append(view)
        return {"upsertView": {"view": {"name": "nw-abc-v", "id": "1"}}}

    monkeypatch.setattr(internal, "upsert_view2", upsert)
    assert call(monkeypatch, "lab/dlmlab") == 0
    assert [view.display_name for view in sent] == ["Decoders compared"]
    assert "lab/dlmlab" in capsys.readouterr().out


def test_w_and_b_out_of_reach_is_one_line(monkeypatch, capsys):
    from wandb_workspaces.workspaces import internal

    def upsert(view):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(internal, "upsert_view2", upsert)
    assert call(monkeypatch, "lab/dlmlab") == 1
    assert capsys.readouterr().err == "error: the workspace is not on W&B: no route to host\n"


def test_a_project_without_an_entity_is_said(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, "dlmlab")
    assert "'dlmlab' is not ENTITY/PROJECT" in capsys.readouterr().err
