"""From a folder of crystals, and properties of some, to a ranked list of candidates for transparent conductors.

The properties are experimental gaps (eV, 300 K) and electron masses averaged over directions, rounded, after Madelung,
Semiconductors: Data Handbook (Springer, 2004). The SOREP paper's criteria turn them into labels: a gap above 0.5 eV and
a light carrier of either kind. Metals are no candidates whatever their masses. Rutile is left open: its electrons are
heavy, and nothing is said of its holes; a missing property is never taken for a bad one.

Thirteen labels show the way and prove nothing; `sorep screen evaluate` tells what a model is worth.

    python examples/screen_transparent_conductors.py                  # kinetic features, half a minute
    python examples/screen_transparent_conductors.py --single-shot    # needs sorep pw build, sorep pseudos install
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import sorep
from sorep.screening.criteria import get_criteria
from sorep.screening.models import build_model, fit_model, predicted
from sorep.screening.strategies import Planner

METALS = dict.fromkeys(("al", "cu", "fe", "graphite"), (0.0, np.nan))
MEASURED = METALS | {
    "si": (1.12, 0.26), "ge": (0.66, 0.12), "gaas": (1.42, 0.067), "cdte": (1.5, 0.1), "aln": (6.1, 0.4),
    "zno": (3.4, 0.28), "sno2": (3.6, 0.27), "in2o3": (2.9, 0.3), "mgo": (7.8, 0.38), "tio2_rutile": (3.0, 10.0),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "structures")
    parser.add_argument("--single-shot", action="store_true", help="single-shot DFT instead of kinetic features")
    parser.add_argument("--out", type=Path, default=Path("ranked.csv"))
    options = parser.parse_args()
    structures = [one for one in sorep.structures_from(options.folder) if isinstance(one, sorep.Structure)]
    if options.single_shot:
        values = np.array([sorep.single_shot_feature(one, "band-edges") for one in structures])
    else:
        values = sorep.KineticSOREP(k_spacing=0.5).fit_transform(structures)
    properties = pd.DataFrame.from_dict(MEASURED, orient="index", columns=["gap", "electron_mass"])
    labels = get_criteria("transparent-conductor").apply(properties.assign(hole_mass=np.nan)).dropna()
    frame = pd.DataFrame({"id": [one.id for one in structures], "formula": [one.formula for one in structures]})
    frame["label"] = labels.reindex(frame["id"]).array
    known = np.flatnonzero(frame["label"].notna())
    truth = frame["label"].to_numpy()[known].astype(bool)
    frame["score"] = predicted(fit_model(build_model("default"), values[known], truth), values)
    print(frame.sort_values("score", ascending=False).to_string(index=False, float_format="%.2f", na_rep="?"))
    frame.to_csv(options.out, index=False)
    planner = Planner(values, costs=np.ones(len(values)), strategy="yield", build=build_model)
    best = planner.propose(known, truth, budget=3).rows
    print(f"calculate next: {', '.join(frame['id'].iloc[best])}")


if __name__ == "__main__":
    main()
