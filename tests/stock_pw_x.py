"""An unpatched pw.x of the version that the patches are for, to compare with; built once, into the same cache.

`make test` runs this before the tests, which skip their comparisons where there is none.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from sorep.single_shot.build import Recipe, build, patch_folder


def stock_recipe(folder: Path) -> Recipe:
    """The recipe without patches, its files in ``folder``."""
    shutil.copy(patch_folder() / "source.json", folder)
    shutil.copy(Path(__file__).with_name("stock_golden.json"), folder / "golden.json")
    return Recipe(folder, mpi=False)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(build(patches=stock_recipe(Path(name)).patches))
