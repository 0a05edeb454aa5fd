"""`generate` shared by processes: the same files, whoever writes them."""

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from vad_pseudoaug import PseudoVideoSampler
from vad_pseudoaug.cli import main
from vad_pseudoaug.export import export_videos
from vad_pseudoaug.features import read_list
from vad_pseudoaug.shards import SHARD_VIDEOS, Job, cut, find_rank


@pytest.fixture
def run(vae, videos, tmp_path):
    """A checkpoint with its sources in files."""
    sources = []
    for name, group in zip(("normal", "abnormal"), videos, strict=True):
        files = []
        for number, video in enumerate(group):
            files.append(tmp_path / f"{name}{number}.npy")
            np.save(files[-1], video.transpose(1, 0, 2))
        sources.append(files)
    sampler = PseudoVideoSampler(vae, normal=sources[0], abnormal=sources[1])
    sampler.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def generate(run, folder, **options):
    sampler = PseudoVideoSampler.from_pretrained(run)
    return export_videos(sampler, folder, relative=True, **options)


def generate_in_process(run, folder, rank, world_size):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size))
    generate(run, folder)


def together(run, folder, ranks):
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=generate_in_process, args=(run, folder, *rank))
        for rank in ranks
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


@pytest.mark.parametrize("file_format", ["npy", "safetensors"])
def test_any_number_of_processes_writes_the_same_bytes(run, tmp_path, file_format):
    whole = None
    for world_size in (1, 2, 3, 9):
        folder = tmp_path / f"{world_size}"
        for rank in reversed(range(world_size)):
            done = generate(
                run, folder, rank=rank, world_size=world_size, file_format=file_format
            )
            # 12 pseudo normal videos are 2 shards, 16 pseudo abnormal ones 2.
            assert (done.num_missing == 0) == (rank == 0)
            assert done.normal_list.exists() == (rank == 0)
        assert (done.num_normal, done.num_abnormal) == (12, 16)
        whole = whole or contents(folder)
        assert contents(folder) == whole
    assert not [name for name in whole if name.rpartition("/")[2].startswith(".")]


def test_processes_at_once_and_two_for_the_same_work(run, tmp_path):
    generate(run, tmp_path / "one")
    together(run, tmp_path / "two", [(0, 2), (1, 2), (0, 1)])
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_what_torchrun_sets_is_taken(run, tmp_path, monkeypatch, capsys):
    arguments = ["generate", str(run), "-o", str(tmp_path / "out")]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(arguments) == 0
    assert "of 28 videos 16 are left to other processes" in capsys.readouterr().out
    monkeypatch.setenv("RANK", "0")
    assert main(arguments) == 0
    assert "there are 12 pseudo normal videos" in capsys.readouterr().out
    assert main([*arguments, "--rank", "2", "--world-size", "2"]) == 2
    assert "0 <= rank < world_size, got 2 and 2" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "first")
    assert main(arguments) == 2
    assert "RANK: expected a whole number, got 'first'" in capsys.readouterr().err


def test_torchrun_itself(run, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "vad_pseudoaug", "generate"]
    command += [str(run), "-o", str(tmp_path / "two"), "--relative"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    generate(run, tmp_path / "one")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_finished_shards_are_kept_and_broken_files_mended(run, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    generate(run, folder)
    whole = contents(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}
    with monkeypatch.context() as patch:
        patch.setattr(PseudoVideoSampler, "sample", None)
        generate(run, folder)
    victims = sorted(folder.rglob("pseudo_normal/*.npy"))
    victims[0].write_bytes(victims[0].read_bytes()[:50])
    victims[5].unlink()
    assert generate(run, folder, rank=0, world_size=2).num_missing == 0
    assert contents(folder) == whole
    kept = [p for p, ns in times.items() if p.stat().st_mtime_ns == ns]
    assert len(times) - len(kept) == 2 * SHARD_VIDEOS  # one shard and its masks


@pytest.mark.parametrize("record", ["[1]", "7", '{"a.npy": 3}', '{"a.npy": {}}', "{"])
def test_a_record_that_is_none_is_written_anew(run, tmp_path, record):
    folder = tmp_path / "out"
    generate(run, folder)
    whole = contents(folder)
    for path in (folder / "shards").iterdir():
        path.write_text(record)
    assert generate(run, folder, rank=0, world_size=2).num_missing
    generate(run, folder)
    assert contents(folder) == whole


def test_checksums_tell_size_and_sha256(run, tmp_path):
    folder = tmp_path / "out"
    generate(run, folder)
    facts = json.loads((folder / "checksums.json").read_text())
    files = list(folder.rglob("*.npy"))
    assert sorted(facts) == sorted(str(p.relative_to(folder)) for p in files)
    for name, fact in facts.items():
        data = (folder / name).read_bytes()
        assert fact == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_safetensors_hold_the_same_videos(run, tmp_path):
    generate(run, tmp_path / "npy")
    done = generate(run, tmp_path / "st", file_format="safetensors")
    found = {}
    for file in read_list(done.abnormal_list):
        found.update(load_file(file))
    names = read_list(tmp_path / "npy" / "pseudo_abnormal.list")
    assert len(found) == 2 * len(names) == 32
    for path in names:
        assert np.array_equal(found[path.stem], np.load(path))
        mask = np.load(tmp_path / "npy" / "masks" / "pseudo_abnormal" / path.name)
        assert np.array_equal(found[f"{path.stem}.mask"], mask)
    with pytest.raises(ValueError, match="file_format: expected 'npy' or"):
        generate(run, tmp_path / "x", file_format="h5")


def test_another_format_needs_another_folder(run, tmp_path):
    generate(run, tmp_path / "out")
    message = r"another run, which differs in format \(npy, now safetensors\), videos;"
    with pytest.raises(ValueError, match=message):
        generate(run, tmp_path / "out", file_format="safetensors")


def test_the_number_of_threads_changes_no_byte(run, tmp_path):
    program = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[1]));"
        "from vad_pseudoaug.cli import main; main(sys.argv[2:]);"
        "assert torch.get_num_threads() == int(sys.argv[1])"
    )
    for threads in ("1", "4"):
        command = [sys.executable, "-c", program, threads, "generate", str(run)]
        command += ["--relative", "-o", str(tmp_path / threads)]
        subprocess.run(command, check=True)
    assert contents(tmp_path / "1") == contents(tmp_path / "4")


def test_shards_hold_one_class_each():
    jobs = [Job(label, i, i, "", f"x/{label}{i}") for label in (0, 1) for i in range(9)]
    shards = cut(jobs, "safetensors")
    assert [len(shard.jobs) for shard in shards] == [8, 1, 8, 1]
    assert [shard.number for shard in shards] == [0, 1, 2, 3]
    assert [shard.first for shard in shards] == [0, 1, 0, 1]
    assert shards[1].file(jobs[8]) == "x/00001.safetensors"
    assert find_rank(None, None) == (0, 1)


def test_names_that_are_not_utf_8_go_out_as_they_came_in(vae, videos, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    try:
        np.save(tmp_path / f"{name}.npy", videos[0][0].transpose(1, 0, 2))
    except OSError:  # of file systems that have no such names
        return
    sampler = PseudoVideoSampler(
        vae, normal=[tmp_path / f"{name}.npy"], abnormal=videos[1]
    )
    made = export_videos(sampler, tmp_path / "out", per_video=1)
    assert b"00000_caf\xe9" in made.abnormal_list.read_bytes()
    assert [path.is_file() for path in read_list(made.abnormal_list)] == [True]
    assert made.num_abnormal == 1
