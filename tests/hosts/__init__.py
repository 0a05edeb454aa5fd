"""Our own stand-ins for hosts, each with the contract of a family of codebases."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

FEATURE_DIM = 12


def random_videos(num_videos: int, label: int, *shape: int) -> Any:
    """Features `(V, ..., D)` float32, those of abnormal videos above 1."""
    rng = np.random.default_rng([num_videos, label])
    return rng.random((num_videos, *shape), dtype=np.float32) + label


class RtfmDataset:
    """Items as RTFM's: features `(N, T, 12)` numpy float32, 0-d float tensor."""

    def __init__(self, num_videos: int, label: float, *, num_crops=2, length=6):
        rng = np.random.default_rng([num_videos, int(label)])
        shape = (num_videos, num_crops, length, FEATURE_DIM)
        self.features = rng.random(shape, dtype=np.float32)
        self.label = label
        self.test_mode = False
        self.list = [f"video_{i}.npy\n" for i in range(num_videos)]

    def get_num_frames(self) -> int:
        return 16 * self.features.shape[2]

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.features[index], torch.tensor(self.label)


def rtfm_loaders(num_videos: int = 8, batch_size: int = 4) -> list[DataLoader]:
    """Normal and abnormal loader, shuffled, as RTFM makes them."""
    return [
        DataLoader(RtfmDataset(num_videos, label), batch_size, shuffle=True)
        for label in (0.0, 1.0)
    ]


class Items:
    """Any items, as a dataset with attributes of its own."""

    def __init__(self, items: list[Any]):
        self.items = items
        self.modality = "rgb"

    def num_frames(self) -> int:
        return 96

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        # Hosts draw from the global states here.
        torch.rand(1), np.random.rand(1)  # noqa: NPY002
        return self.items[index]


class LoaderLikeItems(DataLoader):
    """UR-DMU's: a dataset that subclasses DataLoader without its constructor."""

    def __init__(self, items: list[Any]):
        self.__dict__["items"] = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def a_magnitude(label: int) -> Items:
    """Family A, a fork: D + 1 with the norm, a caption behind the label."""
    videos = random_videos(9 - label, label, 2, 6, FEATURE_DIM)
    norm = np.linalg.norm(videos, axis=-1, keepdims=True)
    videos = np.concatenate([videos, norm], axis=-1)
    return Items([(v, torch.tensor(float(label)), "caption") for v in videos])


def b_halves(label: int) -> LoaderLikeItems:
    """Family B: `(T, D)` and a python int."""
    videos = random_videos(9 - label, label, 6, FEATURE_DIM)
    return LoaderLikeItems([(v, label) for v in videos])


def b_dictionary(label: int) -> Items:
    """Family B: a dictionary."""
    videos = random_videos(9 - label, label, 6, FEATURE_DIM)
    return Items([{"features": torch.from_numpy(v), "label": label} for v in videos])


def c_bare(label: int) -> Items:
    """Family C: a bare array."""
    return Items(list(random_videos(9 - label, label, 6, FEATURE_DIM)))


def d2_clip(label: int) -> Items:
    """Family D2: padded `(T, D)`, float16 or float32, class name, length."""
    items = []
    for number, video in enumerate(random_videos(9 - label, label, 6, FEATURE_DIM)):
        length = 6 - number % 3
        padded = torch.from_numpy(video)
        padded[length:] = 0
        padded = padded.half() if number % 2 else padded
        items.append((padded, ("Normal", "Fighting")[label], length))
    return Items(items)


def d_mixed() -> Items:
    """Family D: padded rgb + audio, float label, both classes in one dataset."""
    items = []
    for number in range(14):
        label = number % 2
        video = random_videos(1, label, 6, FEATURE_DIM + 3)[0]
        video = video * (1 + number / 100)
        video[5 - number % 3 :] = 0
        items.append((video, float(label)))
    return Items(items)


def d_strings() -> Items:
    """Family D: XD-Violence's class strings and a length."""
    names = ("A", "B2-0-0", "A", "G-0-0")
    items = []
    for number in range(12):
        label = number % 2
        video = random_videos(1, label, 6, FEATURE_DIM)[0] * (1 + number / 100)
        items.append((torch.from_numpy(video), names[number % 4], 6))
    return Items(items)


def e_pairs() -> Items:
    """Family E: abnormal first, normal second, a label pair."""
    abnormal = random_videos(9, 1, 6, FEATURE_DIM)
    normal = random_videos(9, 0, 6, FEATURE_DIM)
    return Items(
        [
            (torch.from_numpy(a), torch.from_numpy(n), torch.tensor([1.0, 0.0]))
            for a, n in zip(abnormal, normal, strict=True)
        ]
    )


def g_bags() -> Items:
    """Family G, torchmil: bags of any length, with one row an instance."""
    items = []
    for number in range(12):
        label, length = number % 2, 3 + number % 4
        video = random_videos(1, label, length, FEATURE_DIM)[0] * (1 + number / 100)
        items.append(
            {
                "X": torch.from_numpy(video),
                "Y": torch.tensor([label]),
                "coords": torch.arange(length),
            }
        )
    return Items(items)


class BatchIterable:
    """Family F: batches by the old sequence protocol, normals first, unit norms."""

    def __init__(self, num_batches: int = 5):
        normal, abnormal = (random_videos(4, k, 6, FEATURE_DIM) for k in (0, 1))
        features = torch.from_numpy(np.concatenate([normal, abnormal]))
        self.features = torch.nn.functional.normalize(features, dim=-1)
        self.num_batches = num_batches
        self.position = 0

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: int) -> Any:
        if self.position == self.num_batches:
            self.position = 0
            raise StopIteration
        self.position += 1
        return self.features, torch.tensor([0.0] * 4 + [1.0] * 4)


def collate_bags(items: list[Any]) -> Any:
    """Pad bags with zeros and give a mask, as torchmil does."""
    length = max(len(item["X"]) for item in items)
    pad = torch.nn.functional.pad
    return {
        "X": torch.stack([pad(i["X"], (0, 0, 0, length - len(i["X"]))) for i in items]),
        "Y": torch.stack([item["Y"] for item in items]),
        "mask": torch.stack(
            [(torch.arange(length) < len(i["X"])).float() for i in items]
        ),
    }
