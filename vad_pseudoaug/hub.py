"""Checkpoints on the Hugging Face Hub, with a card that says what they are.

What is pushed names no path of this machine. What is pulled is the two kinds of files
that a checkpoint has, and is read with the same care as any other.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoint import CheckpointError
from .extras import require
from .recipe import Recipe
from .vae import CLASS_NAMES
from .writing import WEIGHTS, read_json

if TYPE_CHECKING:
    from .sampler import PseudoVideoSampler

FILES = ("config.json", WEIGHTS)
CARD = """---
library_name: vad-pseudoaug
{licence}tags:
- video-anomaly-detection
- data-augmentation
- variational-autoencoder
---

# Pseudo videos for weakly supervised video anomaly detection

A `PseudoVideoSampler`: a Multi-Task VAE that was trained on snippet features, and makes
pseudo normal and pseudo abnormal videos of real ones.

```python
from vad_pseudoaug import PseudoVideoSampler

sampler = PseudoVideoSampler.from_hub("{repo_id}", normal=normal, abnormal=abnormal)
```

`normal` and `abnormal` are your videos, of features by the same extractor:
{num_features} values a snippet. It needs vad-pseudoaug with its extra `hub`:
`pip install '.[hub]'` in a clone of the repository.

## What it was fitted on

{fitted}

## Recipe

`{recipe}`, seed {seed}. {choices}

{gates}## Licence

{licence_note} The features that it was fitted on, and the videos that they come from,
have terms of their own. {bank}
"""


def push(
    sampler: PseudoVideoSampler,
    repo_id: str,
    *,
    run: str | os.PathLike[str] | None = None,
    licence: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Upload a PseudoVideoSampler",
) -> str:
    """Upload a sampler; arguments as in `PseudoVideoSampler.push_to_hub`."""
    api = require("huggingface_hub", extra="hub").HfApi()
    gates = None if run is None else _read_gates(Path(run))
    bare = sampler.worker_copy()  # without sources: their paths are nobody's business
    bare.history, bare.selection = sampler.history, sampler.selection
    with tempfile.TemporaryDirectory() as folder:
        bare.save_pretrained(folder)
        card = format_card(sampler, repo_id, gates=gates, licence=licence)
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        api.create_repo(repo_id, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=message,
            revision=revision,
            delete_patterns=list(FILES),  # the weights of an older one
        )
    return str(done.commit_url)


def pull(repo_id: str, *, revision: str | None = None) -> Path:
    """Download a checkpoint, and nothing else that may lie beside it.

    Args:
        repo_id: "user/name".
        revision: Branch, tag or commit; a commit is always the same.

    Returns:
        The folder of the checkpoint, in the hub's cache.

    Raises:
        ImportError: If huggingface_hub is not installed; the message names the extra.
        FileNotFoundError: If there is no checkpoint.
        CheckpointError: If it names videos: it would read files of this machine.
    """
    hub = require("huggingface_hub", extra="hub")
    folder = Path(
        hub.snapshot_download(repo_id, revision=revision, allow_patterns=list(FILES))
    )
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{repo_id}: holds no checkpoint, no config.json")
    try:
        config = read_json(path)
    except ValueError as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    sources = config.get("sources") if isinstance(config, dict) else None
    if sources != {"normal": None, "abnormal": None}:
        raise CheckpointError(
            f"{repo_id}: expected a checkpoint that push_to_hub wrote, which names no "
            "videos"
        )
    return folder


def format_card(
    sampler: PseudoVideoSampler,
    repo_id: str,
    *,
    gates: Mapping[str, Any] | None = None,
    licence: str | None = None,
) -> str:
    """Return the model card, as Markdown.

    Args:
        sampler: With the videos that it was fitted on, if they are to be counted.
        repo_id: "user/name".
        gates: What `Check.to_dict` returns; None leaves the table out.
        licence: Its identifier, as "mit"; None says that none was named.
    """
    fitted = [
        f"- {len(videos)} {name} videos"
        for name, videos in (("normal", sampler.normal), ("abnormal", sampler.abnormal))
        if videos is not None
    ]
    chosen = sampler.selection
    if chosen.get("num_selected") is not None:
        fitted.append(
            f"- of the abnormal ones, {chosen['num_selected']} of "
            f"{chosen['num_snippets']} snippets were selected as abnormal"
        )
    if sampler.history:
        last = sampler.history[-1]
        terms = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        fitted.append(f"- {len(sampler.history)} epochs; the last one: {terms}")
    held = [
        f"{int(bank.lengths.sum())} {CLASS_NAMES[label]}"
        for label, bank in sorted(sampler.banks.items())
    ]
    bank = (
        f"This checkpoint holds real training snippets ({' and '.join(held)} ones), "
        "which its recipe builds on: publish it only if you may publish them."
        if held
        else "This checkpoint holds weights, and no training snippet."
    )
    note = "No licence was named." if licence is None else f"This model: {licence}."
    return CARD.format(
        repo_id=repo_id,
        num_features=sampler.feature_dim,
        fitted="\n".join(fitted) or "Not recorded.",
        recipe=sampler.recipe.name,
        seed=sampler.seed,
        choices=_choices(sampler.recipe),
        gates="" if gates is None else _table(gates),
        licence="" if licence is None else f"license: {licence}\n",
        licence_note=note,
        bank=bank,
    )


def _choices(recipe: Recipe) -> str:
    """Name the choices that differ from those of the recipe of that name."""
    try:
        usual = Recipe.named(recipe.name)
    except ValueError:
        usual = Recipe.named("paper")
    changed = [
        f"`{one.name}={getattr(recipe, one.name)!r}`"
        for one in fields(Recipe)
        if getattr(recipe, one.name) != getattr(usual, one.name)
    ]
    return f"Changed: {', '.join(changed)}." if changed else "No choice was changed."


def _read_gates(run: Path) -> Mapping[str, Any] | None:
    """Read the gates of a run, or of its report's folder, if it was checked."""
    found = [run / "report" / "gates.json", run / "gates.json"]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        return None
    try:
        gates: Mapping[str, Any] = read_json(path)
        _table(gates)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not readable as gates: {error}") from error
    return gates


def _table(gates: Mapping[str, Any]) -> str:
    rows = [
        f"| {part} | {gate['name']} | {gate['value']:.3g} | {gate['accept']} | "
        f"{'pass' if gate['passed'] else 'FAIL'} |"
        for part, own in gates["gates"].items()
        for gate in own
    ]
    verdict = "all passed" if gates["passed"] else "not all passed"
    return "\n".join(
        [
            f"## Gates: {verdict}",
            "",
            "By `vad-pseudoaug check`, on training videos that were held out.",
            "",
            "| of | figure | value | passes if | verdict |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            "",
        ]
    )
