"""The command line: thin doors to the package, each importing what it needs when it is opened."""

from __future__ import annotations

import typer

from sorep.cli import (
    bands,
    doctor,
    features,
    featurize,
    label,
    mat2spec,
    plot,
    pseudos,
    pw,
    screen,
    single_shot,
    store,
    unique,
)
from sorep.cli.console import guarded

app = typer.Typer(
    name="sorep",
    help="Turn crystal structures into features that know their electronic structure.\n\n"
    "A first run:\n\n"
    "    sorep featurize structures/          # kinetic SOREPs of every structure file below a folder\n\n"
    "    sorep list                           # what is in ./sorep-store\n\n"
    "    sorep plot si ge --out features.png  # look at some\n\n"
    "    sorep export kinetic features.parquet\n\n"
    "    sorep unique                         # which structures are the same\n\n"
    "Single-shot DFT, after `sorep pw build` and `sorep pseudos install`:\n\n"
    "    sorep single-shot structures/\n\n"
    "In Python: sorep.FeatureStore('sorep-store').matrix('kinetic')",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for function in (
    featurize.featurize,
    single_shot.single_shot,
    features.refeaturize,
    features.features,
    store.list_,
    store.failures,
    store.export,
    plot.plot,
    bands.bands,
    unique.unique,
    unique.similar,
    label.label,
    store.cite,
    doctor.doctor,
):
    app.command(name=function.__name__.rstrip("_").replace("_", "-"))(guarded(function))

app.add_typer(pw.pw_app, name="pw")
app.add_typer(pseudos.pseudos_app, name="pseudos")
app.add_typer(screen.screen_app, name="screen")
app.add_typer(mat2spec.mat2spec_app, name="mat2spec")


def main() -> None:
    """Entry point of the ``sorep`` command."""
    app()
