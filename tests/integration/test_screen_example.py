"""The screening example, run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd

SCRIPT = Path(__file__).parents[2] / "examples" / "screen_transparent_conductors.py"


def test_structures_and_some_properties_become_a_ranked_list(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--out", tmp_path / "ranked.csv"]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert completed.returncode == 0, completed.stderr
    ranked = pd.read_csv(tmp_path / "ranked.csv").set_index("id")
    assert len(ranked) == 24 and ranked["label"].notna().sum() == 13
    assert ranked["label"].isna()["tio2_rutile"]  # heavy electrons, unknown holes: open
    labelled = ranked.dropna(subset="label")
    is_candidate = labelled["label"].astype(bool)
    assert labelled["score"][is_candidate].min() > labelled["score"][~is_candidate].max()
    proposed = completed.stdout.rpartition("calculate next: ")[2].strip().split(", ")
    assert len(proposed) == 3 and ranked.loc[proposed, "label"].isna().all()
