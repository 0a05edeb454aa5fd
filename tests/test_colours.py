"""Colours, completion and progress: what a terminal gets, and a file does not."""

import io
import shutil
import subprocess
import sys

import numpy as np
import pytest

from vad_pseudoaug import extras, plain_bar
from vad_pseudoaug.auto import choose_p
from vad_pseudoaug.cli import main
from vad_pseudoaug.colours import painter, plain
from vad_pseudoaug.inspection import format_inspection, inspect_files


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_colours_are_for_terminals_that_want_them(terminal, monkeypatch):
    assert painter(terminal)("FAIL", "bad") == "\x1b[1;31mFAIL\x1b[0m"
    assert painter(terminal)("pass", "good") == "\x1b[32mpass\x1b[0m"
    assert painter(io.StringIO()) is plain
    monkeypatch.setenv("TERM", "dumb")
    assert painter(terminal) is plain
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "")  # no-color.org: empty does not count
    assert painter(terminal) is not plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert painter(terminal)("FAIL", "bad") == "FAIL"


def test_inspect_marks_what_is_not_finite(tmp_path, terminal):
    video = np.ones((4, 2, 5), np.float32)
    np.save(tmp_path / "good.npy", video)
    video[0, 0, 0] = np.nan
    np.save(tmp_path / "bad.npy", video)
    found = inspect_files([tmp_path / "good.npy", tmp_path / "bad.npy"])
    text = format_inspection(found, paint=painter(terminal))
    [line] = [line for line in text.splitlines() if "\x1b" in line]
    assert line.startswith("\x1b[1;31mnot finite: ")
    assert "\x1b" not in format_inspection(found)


def test_errors_are_marked(terminal, monkeypatch, capsys):
    assert main(["inspect", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["inspect", "nothing"]) == 2
    assert terminal.getvalue().startswith("\x1b[1;31merror:\x1b[0m ")


@pytest.fixture(params=["tqdm", "plain"])
def bars(request, monkeypatch):
    if request.param == "tqdm":
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
        monkeypatch.setattr(plain_bar, "SECONDS_BETWEEN_DRAWS", 0.0)


def test_progress_is_shown_on_a_terminal_after_two_seconds(bars, terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(extras.track([1, 2, 3], "quick", show=None)) == [1, 2, 3]
    assert "quick" not in terminal.getvalue()
    monkeypatch.setattr(extras, "PATIENCE", 0.0)
    assert list(extras.track(range(3), "slow", show=None)) == [0, 1, 2]
    assert "slow" in terminal.getvalue()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    list(extras.track(range(3), "to a file", show=None))
    assert sys.stderr.getvalue() == ""


def test_without_tqdm_a_line_tells_what_is_done_and_the_time_left(
    terminal, monkeypatch
):
    now = 0.0
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(plain_bar.time, "monotonic", lambda: now)
    monkeypatch.setenv("COLUMNS", "60")
    with extras.progress_bar(10, "outer", show=None) as outer:
        now = 1.0
        outer()
        assert terminal.getvalue() == ""
        now = 30.0
        with extras.progress_bar(100, "inner", show=None) as inner:
            now = 31.0
            inner(loss=0.12345)
            now = 33.0
            inner(loss=0.12345)
        outer()
    inside, after, cleared, end = terminal.getvalue().split("\r")[1:]
    assert inside == "outer: 1 of 10, 4:57 left | inner: 2 of 100, 2:27 left, los"
    assert after.rstrip() == "outer: 1 of 10, 4:57 left"
    assert len(inside) == len(after) == 59
    assert (cleared.strip(), end) == ("", "")
    assert not plain_bar.PlainBar._open


def test_steps_of_an_earlier_run_took_no_time(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(plain_bar.time, "monotonic", lambda: clock[0])
    bar = plain_bar.PlainBar(10, "steps", delay=1e9, initial=6)
    assert str(bar) == "steps: 6 of 10"
    clock[0] += 4
    bar.update()
    assert str(bar) == "steps: 7 of 10, 0:12 left"


def test_trying_and_cross_fitting_tell_their_parts(many_videos, terminal, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(extras, "PATIENCE", 0.0)
    monkeypatch.setattr(plain_bar, "SECONDS_BETWEEN_DRAWS", 0.0)
    monkeypatch.setenv("COLUMNS", "200")
    choose_p(
        *many_videos,
        train=lambda normal, abnormal, seed: lambda video: video.mean(axis=(0, 2)),
        parts=2,
        hidden_dims=(16,),
        latent_dim=4,
        epochs=1,
        steps_per_epoch=2,
        baseline_epochs=5,
        baseline_hidden_dims=(8,),
        normal_quantile=0.5,
    )
    shown = terminal.getvalue()
    for part in range(1, 6):
        assert f"baseline {part} of 5: 3 of 5, " in shown
    for step in range(1, 9):
        assert f"trying p: 2 samplers and 6 detectors: {step} of 8, " in shown


SLOW = "from vad_pseudoaug.cli import main; import sys; main({}); "


@pytest.mark.parametrize("arguments", [["completion", "bash"], ["completion", "fish"]])
def test_completion_does_not_wait_for_torch(arguments):
    pytest.importorskip("shtab")
    code = SLOW.format(arguments) + "sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"vad-pseudoaug" in done.stdout


def complete(script, *words):
    """Ask bash, as the Tab key does after the last word."""
    code = f"""
source {script}
COMP_WORDS=(vad-pseudoaug {" ".join(words)})
COMP_CWORD={len(words)}
compopt() {{ :; }}
$(complete -p vad-pseudoaug | sed 's/.*-F \\([^ ]*\\) .*/\\1/') x "{words[-1]}" y
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [row.strip() for row in done.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_choices_and_files(
    tmp_path, capsys, monkeypatch
):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "files" / "run").mkdir(parents=True)
    (tmp_path / "files" / "normal.list").touch()
    monkeypatch.chdir(tmp_path / "files")
    assert "fit" in complete(script, "f")
    assert complete(script, "gen") == ["generate"]
    assert complete(script, "fit", "--norm")[0] == "--normal"
    assert set(complete(script, "fit", "--recipe", "")) >= {"paper", "robust"}
    assert any("normal.list" in c for c in complete(script, "fit", "--normal", "n"))
    folders = complete(script, "generate", "")
    assert any("run" in c for c in folders)
    assert not any("normal.list" in c for c in folders)
    assert set(complete(script, "completion", "")) >= {"bash", "zsh", "fish"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_every_command(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in ("fit", "generate", "demo", "inspect", "check", "compare"):
        assert command in script
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script.encode(), capture_output=True)
        assert done.returncode == 0, done.stderr


def test_without_shtab_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "vad-pseudoaug[cli]" in capsys.readouterr().err
