"""The page of a check: verdicts, figures and pictures in one file to send around."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path

from .check import Check
from .checkpoint import atomic_path, write_json
from .colours import Paint, plain
from .gates import Gate
from .pictures import Picture, draw_pictures
from .vae import ABNORMAL, NORMAL

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Are these pseudo videos any good?</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 66rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }} h2 {{ font-size: 1.25rem; margin-top: 2.5rem; }}
table {{ border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .6rem;
  border-bottom: 1px solid #ddd; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
td.short {{ white-space: nowrap; }}
td.meaning {{ color: #555; font-size: .9rem; }}
.pass {{ color: #00624a; }}
.fail {{ color: #fff; background: #b3400f; padding: 0 .4rem; border-radius: .2rem; }}
.verdict {{ border-left: .4rem solid; padding: .6rem 1rem; background: #f6f6f6; }}
.verdict ul {{ margin: .3rem 0 0; }}
.verdict.good {{ border-color: #00624a; }} .verdict.bad {{ border-color: #b3400f; }}
img {{ max-width: 100%; height: auto; }} figure {{ margin: 1rem 0; }}
figcaption {{ color: #555; }}
</style>
</head>
<body>
<h1>Are these pseudo videos any good?</h1>
{verdict}
<h2>What was judged</h2>
{judged}
<h2>How to read the tables</h2>
<p>A gate is a figure with a limit that good pseudo videos keep. The gates of pseudo
videos compare generated snippets with real ones of the class that they claim, from
training videos that the model never saw: <b>value</b>. <b>Real</b> is the same figure
between two halves of the real videos: no pseudo video needs to be better.
<b>Classes</b> is the same figure between normal and abnormal real snippets: a generated
snippet as far off as that is no better than one of the wrong class. No test video was
used.</p>
<p>Where several gates fail, look first at <i>classes differ</i> (if the selected
snippets are no class of their own, the selection is to be changed, not the model), then
at the gates of the model (trained too briefly, or too small), and then at the others.
AUC, the area under the ROC curve, is the chance that a classifier ranks one of each
kind rightly: 0.5 is guessing, 1 is always. A host is the detector that is to be trained
on the pseudo videos.</p>
{tables}
<h2>Pictures</h2>
{pictures}
<h2>The recipe</h2>
{recipe}
</body>
</html>
"""


def write_report(
    check: Check, folder: str | os.PathLike[str], *, progress: bool | None = None
) -> Path:
    """Write a check as `report.html`, `gates.json` and one PNG file a picture.

    Args:
        check: What `check_sampler` found.
        folder: Made if it does not exist.
        progress: Show a bar; None decides by the terminal.

    Returns:
        The page. It holds its pictures, and may be moved on its own.

    Raises:
        ImportError: If matplotlib or scikit-learn is missing; it names the extra.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw_pictures(check, progress=progress)
    parts = []
    for picture in pictures:
        buffer = io.BytesIO()
        picture.figure.savefig(buffer, format="png", dpi=110)
        data = buffer.getvalue()
        with atomic_path(folder / f"{picture.name}.png") as temporary:
            temporary.write_bytes(data)
        parts.append(_figure(picture, data))
    write_json(folder / "gates.json", check.to_dict())
    page = folder / "report.html"
    with atomic_path(page) as temporary:
        temporary.write_text(
            PAGE.format(
                verdict=_verdict(check),
                judged=_judged(check),
                tables="\n".join(
                    f"<h2>Gates of {html.escape(name)}</h2>\n{_table(gates)}"
                    for name, gates in check.gates.items()
                ),
                pictures="\n".join(parts),
                recipe=_recipe(check),
            ),
            encoding="utf-8",
        )
    return page


def format_gates(check: Check, *, paint: Paint = plain) -> str:
    """Lay the gates out as text; `paint` colours the verdicts."""
    every = [gate for part in check.gates.values() for gate in part]
    wide, accept = (
        max(len(text) for text in column)
        for column in zip(*((g.name, g.accept) for g in every), strict=True)
    )
    lines = []
    for name, gates in check.gates.items():
        head = "".join(f"{word:>9}" for word in ("value", "real", "classes"))
        lines += [name, f"  {'':<{wide}}{head}   passes if"]
        for gate in gates:
            numbers = "".join(f"{_number(v):>9}" for v in gate[1:4])
            lines.append(
                f"  {gate.name:<{wide}}{numbers}   {gate.accept:<{accept}}  "
                f"{paint(_verdict_word(gate), 'good' if gate.passed else 'bad')}"
            )
        lines.append("")
    num_failed, num_gates = _counts(check)
    total = f"{num_gates - num_failed} of {num_gates} gates passed"
    lines.append(paint(total, "bad" if num_failed else "good"))
    return "\n".join(lines)


def _counts(check: Check) -> tuple[int, int]:
    gates = [gate for part in check.gates.values() for gate in part]
    return sum(not gate.passed for gate in gates), len(gates)


def _verdict(check: Check) -> str:
    num_failed, num_gates = _counts(check)
    if check.passed:
        return (
            f'<p class="verdict good"><b>All {num_gates} gates passed.</b> Nothing '
            "here speaks against training on these pseudo videos. Whether they help "
            "is another question: ask <code>vad-pseudoaug compare</code>.</p>"
        )
    named = "".join(
        f"<li>{html.escape(part)}: "
        f"{'; '.join(html.escape(gate.name) for gate in gates if not gate.passed)}</li>"
        for part, gates in check.gates.items()
        if not all(gate.passed for gate in gates)
    )
    return (
        f'<div class="verdict bad"><b>{num_failed} of {num_gates} gates failed.</b> '
        f"The tables below say what each of them means.<ul>{named}</ul></div>"
    )


def _judged(check: Check) -> str:
    sampler = check.sampler
    # Pseudo abnormal videos are made of normal sources.
    if check.one_class:
        return (
            f"<p>A sampler of the recipe <b>{html.escape(sampler.recipe.name)}</b>, "
            f"seed {sampler.seed}, fitted on {len(sampler.sources(ABNORMAL))} normal "
            f"videos; its pseudo abnormal videos of {len(check.sources[ABNORMAL])} "
            "normal training videos that it never saw.</p>"
            "<p>A video is a sequence of snippets, the features of 16 frames each. No "
            "abnormal video was given: a pseudo abnormal video is a normal one, its "
            "source, in which a run of snippets was disturbed, and it is compared with "
            "real normal ones. It should differ from them, and by what was disturbed "
            "alone.</p>"
        )
    fitted = (len(sampler.sources(ABNORMAL)), len(sampler.sources(NORMAL)))
    held_out = (len(check.sources[ABNORMAL]), len(check.sources[NORMAL]))
    return (
        f"<p>A sampler of the recipe <b>{html.escape(sampler.recipe.name)}</b>, seed "
        f"{sampler.seed}, fitted on {fitted[0]} normal and {fitted[1]} abnormal "
        f"videos; its pseudo videos of {held_out[0]} normal and {held_out[1]} abnormal "
        "training videos that it never saw.</p>"
        "<p>A video is a sequence of snippets, the features of 16 frames each. The "
        "model has an encoder, which describes a snippet by some numbers, its latent "
        "units, and two decoders, which make a normal or an abnormal snippet of them. "
        "A pseudo abnormal video is a normal one, its source, in which some snippets "
        "were replaced by generated abnormal ones; a pseudo normal video is an "
        "abnormal one with all of its snippets replaced by generated normal ones. Of "
        "real abnormal videos, the snippets that the recipe selects count as "
        "abnormal.</p>"
    )


def _table(gates: Sequence[Gate]) -> str:
    rows = "\n".join(
        f'<tr><td class="short">{html.escape(gate.name)}</td>'
        + "".join(f'<td class="number">{_number(value)}</td>' for value in gate[1:4])
        + f'<td class="short">{html.escape(gate.accept)}</td>'
        f'<td><span class="{"pass" if gate.passed else "fail"}">'
        f"{_verdict_word(gate)}</span></td>"
        f'<td class="meaning">{html.escape(gate.meaning)}</td></tr>'
        for gate in gates
    )
    return (
        '<table><tr><th>figure</th><th class="number">value</th>'
        '<th class="number">real</th><th class="number">classes</th><th>passes if</th>'
        f"<th>verdict</th><th>what it tells</th></tr>\n{rows}</table>"
    )


def _figure(picture: Picture, data: bytes) -> str:
    title = html.escape(picture.title)
    encoded = base64.b64encode(data).decode("ascii")
    return (
        f"<figure><h3>{title}</h3>"
        f'<img alt="{title}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
    )


def _recipe(check: Check) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>"
        for name, value in check.sampler.recipe.to_dict().items()
    )
    return f"<details><summary>all choices</summary><table>{rows}</table></details>"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    is_plain = value == 0 or 0.005 <= abs(value) < 1000
    return f"{value:.2f}" if is_plain else f"{value:.2g}"


def _verdict_word(gate: Gate) -> str:
    return "pass" if gate.passed else "FAIL"
