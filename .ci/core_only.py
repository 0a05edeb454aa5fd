"""Everything that must work beside the four core packages alone; run by .ci/run."""

import importlib.util
import tempfile

import torch

from vad_pseudoaug import PseudoVideoSampler, VideoSet
from vad_pseudoaug.adapters import rtfm
from vad_pseudoaug.data import ped2

for absent in ("matplotlib", "tqdm", "sklearn", "adapters", "examples"):
    assert importlib.util.find_spec(absent) is None, f"{absent} is installed"

normal, abnormal = (VideoSet(ped2() / f"{n}.list") for n in ("normal", "abnormal"))
small = {"hidden_dims": (32,), "latent_dim": 8, "epochs": 2, "baseline_epochs": 5}
sampler = PseudoVideoSampler.fit(
    normal, abnormal, recipe="paper", threshold=0.4, **small
)
with tempfile.TemporaryDirectory() as folder:
    sampler.save_pretrained(folder)
    again = PseudoVideoSampler.from_pretrained(folder)
first, second = (s.draw(label=1, num_segments=8).features for s in (sampler, again))
assert torch.equal(first, second)


class Dataset:
    def __init__(self, videos: VideoSet, label: float):
        self.videos, self.label = videos, label

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[object, torch.Tensor]:
        return self.videos[index][:, :8], torch.tensor(self.label)


wrapped = rtfm.wrap(Dataset(normal, 0.0), Dataset(abnormal, 1.0), sampler)
assert [len(dataset) for dataset in wrapped] == [16 + 24, 12 + 32]
assert wrapped[1][-1][1] == 1.0
assert PseudoVideoSampler.fit(normal, abnormal, **small).recipe.name == "robust"
try:
    from vad_pseudoaug.plots import plot_history

    plot_history(sampler.history)
except ImportError as error:
    message = str(error)
assert "vad-pseudoaug[plots]" in message
print("the core works with its four dependencies alone")
