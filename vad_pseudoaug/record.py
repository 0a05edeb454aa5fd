"""The record of a run, to fit it once more: recipe, seed and sources."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from .recipe import Recipe
from .videos import VideoSet
from .writing import read_json


class Record(NamedTuple):
    """What a run was made of.

    Attributes:
        recipe: All of its choices.
        seed: Of everything that is random.
        sources: For "normal" and "abnormal" the keywords `files`, `layout` and `key`;
            None where the videos came from no files, or there were none.
    """

    recipe: Recipe
    seed: int
    sources: dict[str, dict[str, Any] | None]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values, flat, to compare it with another."""
        return {"seed": self.seed, **self.sources, **self.recipe.to_dict()}

    def videos(self, name: str) -> VideoSet | None:
        """Return the "normal" or "abnormal" videos, None if they were no files."""
        saved = self.sources[name]
        if saved is None:
            return None
        files = {"layout": saved["layout"], "key": saved["key"], "name": name}
        return VideoSet(saved["files"], **files)


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read the `config.json` of a run; the folder of the run is taken as well.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no record of a run.
    """
    path = Path(path)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such record of a run")
    try:
        config = read_json(path)
        seed, saved = int(config["seed"]), config["sources"]
        recipe = Recipe(**config["recipe"])
        sources = {name: saved[name] for name in ("normal", "abnormal")}
        for source in sources.values():
            if source is not None:
                source["files"] = [str(Path(file)) for file in source["files"]]
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        RecursionError,
    ) as error:
        message = f"{path}: not readable as a record of a run: {error}"
        raise ValueError(message) from error
    return Record(recipe, seed, sources)
