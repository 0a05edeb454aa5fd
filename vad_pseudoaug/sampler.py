"""Pseudo videos: from real videos, in their temporal order (section 3.2.3)."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from .bank import Bank
from .baseline import Baseline
from .checkpoint import (
    TRAINING_STATE,
    CheckpointError,
    check_place,
    read_checkpoint,
    write_checkpoint,
)
from .claims import printable
from .codes import Codes, KeptCodes
from .extras import as_device, track
from .features import LAYOUTS, Layout, to_segments
from .fitting import Fitted, GivenScores, Selected, as_training, fit_vae, measure_fit
from .generation import (
    PseudoVideo,
    count_pseudo_videos,
    order_sources,
    snippet_rows,
    take_rows,
)
from .hub import pull, push
from .items import as_tensor, copied
from .making import SnippetMaker
from .options import names_options
from .processes import Processes
from .profile import FeatureProfile, Table, quantile_table
from .randomness import make_generator
from .recipe import Recipe
from .refreshing import Refreshed, refresh
from .training import History, check_state
from .untouched import left_as_it_was
from .vae import ABNORMAL, CLASS_NAMES, NORMAL, MultiTaskVAE, split_tensors
from .videos import VideoSet, VideoSource, as_recorded

# What the norms of generated snippets are learned from, crops included.
MAX_VIDEOS = 200
MAX_SNIPPETS = 100_000


class PseudoVideoSampler(SnippetMaker):
    """Makes pseudo normal and pseudo abnormal videos of real ones.

    Args:
        vae: A trained model.
        recipe: Share and number of pseudo videos, and how the model was made.
        normal: Normal videos that `draw` makes pseudo abnormal ones of.
        abnormal: Abnormal videos that `draw` makes pseudo normal ones of.
        profile: What generated features are held to, as not to be negative.
        scorer: Scores snippets where the recipe asks for it: which ones of an abnormal
            video to replace, and which candidate is the likeliest.
        banks: For each class real runs, where the recipe grafts or disturbs.
        means: `(2, D)`, the class means, normal first, where the recipe shifts.
        seed: Seed of the sampler's own generator, for calls that give none.

    Attributes:
        history: One entry an epoch of the model's training, see `train_vae`.
        selection: What the abnormal decoder was trained on, see `Selection.to_dict`.
    """

    def __init__(
        self,
        vae: MultiTaskVAE,
        *,
        recipe: Recipe | None = None,
        normal: VideoSource | None = None,
        abnormal: VideoSource | None = None,
        profile: FeatureProfile | None = None,
        scorer: Baseline | None = None,
        banks: Mapping[int, Bank] | None = None,
        means: Tensor | None = None,
        seed: int = 0,
    ):
        super().__init__(
            vae, recipe, profile=profile, scorer=scorer, banks=banks, means=means
        )
        self.seed = seed
        self.generator = make_generator(seed)
        self.history: History = []
        self.selection: dict[str, Any] = {}
        self._selected: Selected | None = None
        self.normal = self._own("normal", normal)
        self.abnormal = self._own("abnormal", abnormal)
        self._lost: dict[str, str] = {}  # sources that could not be found again
        self._kept: dict[tuple[int, int | None], KeptCodes] = {}

    def _own(self, name: str, source: VideoSource | None) -> VideoSet | None:
        if source is None:
            return None
        videos = VideoSet(source, name=name)
        if videos.feature_dim != self.feature_dim:
            raise ValueError(
                f"{name}: the sampler was fitted on feature size {self.feature_dim}, "
                f"the videos have {videos.feature_dim}"
            )
        return videos

    def __repr__(self) -> str:
        counts = [
            f"{name}={'none' if videos is None else len(videos)}"
            for name, videos in (("normal", self.normal), ("abnormal", self.abnormal))
        ]
        return (
            f"{type(self).__name__}(recipe={self.recipe.name!r}, "
            f"feature_dim={self.feature_dim}, {', '.join(counts)})"
        )

    def worker_copy(self) -> PseudoVideoSampler:
        """Return a copy on the CPU without sources: what worker processes can hold."""
        vae = self.vae if self.device.type == "cpu" else copy.deepcopy(self.vae).cpu()
        return PseudoVideoSampler(
            vae,
            recipe=self.recipe,
            profile=self.profile,
            scorer=self.scorer and copy.deepcopy(self.scorer).cpu(),
            banks=self.banks,
            means=self.means,
            seed=self.seed,
        )

    def __getstate__(self) -> dict[str, Any]:
        # Not every torch pickles a generator, and nothing an open file.
        return {**self.__dict__, "generator": None, "_kept": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, generator=make_generator(state["seed"]))

    @torch.no_grad()
    def sample(
        self,
        features: Tensor | NDArray[Any],
        *,
        label: int,
        generator: torch.Generator | None = None,
        lengths: Tensor | None = None,
        codes: Codes | None = None,
    ) -> PseudoVideo:
        """Make one pseudo video of each video given.

        A pseudo abnormal video (`label=1`) keeps a part of its normal source and has
        the share of the recipe, T/2 randomly chosen snippets and at least one, sent
        through the encoder and the abnormal decoder. Of a pseudo normal video
        (`label=0`), every snippet of its abnormal source went through the encoder and
        the normal decoder. Order and length are the source's. The crops of a snippet
        share its mask and its latent noise.

        Args:
            features: One source `(T, D)` or `(N, T, D)`, or a batch `(B, N, T, D)`,
                of the class opposite to `label`. It is not changed.
            label: The class to make, 0 normal or 1 abnormal.
            generator: Where mask and noise come from, video after video, so that one
                seed gives the same videos however they are split over batches. None
                takes the sampler's own.
            lengths: `(B,)`, true lengths of zero-padded videos; the padding stays.
            codes: What `encode` made of the features, once: they are not encoded
                again. For translations "swap" and "residual".

        Returns:
            The pseudo videos, features in the shape, dtype and on the device given.

        Raises:
            TypeError: If the features are no array and no tensor of floating numbers.
            ValueError: If label, shape or feature size is not as said, a value is not
                finite, or the codes are of other features or of no use.
        """
        if label not in (NORMAL, ABNORMAL):
            raise ValueError(f"label: expected 0 or 1, got {label!r}")
        given = as_tensor(features)
        batch = self._as_batch(given)  # (B, N, T, D)
        num_videos, _, num_snippets, _ = batch.shape
        lengths = _as_lengths(lengths, num_videos, num_snippets)
        if codes is not None:
            self._check_codes_of_use(label)
            self._check_codes(codes, given)
        generator = generator or self.generator
        mask = torch.zeros((num_videos, num_snippets), dtype=torch.bool, device="cpu")
        plans, bases = [], []
        for video, length in enumerate(lengths.tolist()):
            plan = self._plan(length, [batch[video, :, :length]], label, generator)
            mask[video, plan.where.cpu()] = True
            plans.append(plan)
            base = self._base(batch[video, :, :length], plan, label, generator)
            bases += [] if base is None else [base]
        where = snippet_rows(mask, num_crops=batch.shape[1]).to(batch.device)  # (M, N)
        pseudo = batch.clone(memory_format=torch.contiguous_format)
        rows = pseudo.view(-1, self.feature_dim)
        if codes is not None:
            codes = Codes(*(take_rows(own.flatten(0, -2), where) for own in codes))
        if codes is None or self.recipe.adds_to_source:
            replaced = take_rows(rows, where)
        else:  # nothing reads them, and what did would show it
            nan = self.vae.mean_head.weight.new_full((), torch.nan)
            replaced = nan.expand(*where.shape, self.feature_dim)
        base = torch.cat(bases, dim=1).transpose(0, 1) if bases else replaced
        made = self._generate(replaced, base, plans, label, codes)
        rows.index_copy_(0, where.flatten(), made.flatten(0, 1).to(rows))
        mask = mask.to(batch.device)
        source = torch.arange(num_videos, dtype=torch.int64, device="cpu")
        if given.ndim < 4:
            mask, source, lengths = mask[0], source[0], lengths[0]
        return PseudoVideo(pseudo.view(given.shape), label, mask, source, lengths)

    def keep_codes(
        self,
        *,
        label: int,
        num_segments: int | None = None,
        progress: bool | None = None,
    ) -> int:
        """Encode all sources once, so that `draw` only decodes.

        The codes lie in half precision in a temporary file (set `TMPDIR` to choose its
        place) for as long as this sampler lives; a copy of it has none.

        Args:
            label: As in the `draw` that they are for.
            num_segments: Likewise.
            progress: Show a bar; None decides by the terminal.

        Returns:
            The size of the file in bytes.

        Raises:
            ValueError: If the sampler has no sources of the other class, or its recipe
                has no use for their codes.
        """
        sources = self.sources(label)
        self._check_codes_of_use(label)

        def parts(number: int) -> Iterator[Codes]:
            if num_segments is not None:
                yield self.encode(to_segments(sources[number], num_segments))
                return
            for _, block in sources.blocks(number):
                yield self.encode(block)

        numbers = track(range(len(sources)), "codes", show=progress)
        kept = KeptCodes(parts(number) for number in numbers)
        self._kept[label, num_segments] = kept
        return kept.num_bytes

    @torch.no_grad()
    def sample_source(
        self, number: int, *, label: int, generator: torch.Generator
    ) -> tuple[Tensor, Iterator[Tensor]]:
        """Make one pseudo video of a source, some snippets at a time.

        It is what `sample` makes of the source, but no video need fit into memory;
        of more than 32 MiB, the last bits may be others. A run that is grafted, and
        the source of a disturbed video, are held whole.

        Args:
            number: Number of the source in `sources(label)`.
            label: The class to make.
            generator: See `sample`.

        Returns:
            The mask `(T,)`, and the features in blocks, float32 `(N, t, D)`.
        """
        sources = self.sources(label)
        length, parts = sources.num_snippets(number), sources.blocks(number)
        first = next(parts)
        is_disturbed = self.recipe.translation == "disturb" and label == ABNORMAL
        if is_disturbed or first[1].shape[1] == length:
            pseudo = self.sample(
                sources.tensor(number), label=label, generator=generator
            )
            return pseudo.pseudo_mask, iter((pseudo.features,))
        read = (copied(block) for _, block in sources.blocks(number))
        plan = self._plan(length, read, label, generator)
        crops = torch.empty(sources.num_crops, 0, self.feature_dim, device="cpu")
        base = self._base(crops, plan, label, generator)
        mask = torch.zeros(length, dtype=torch.bool, device="cpu")
        mask[plan.where] = True
        blocks = itertools.chain((first,), parts)
        return mask, self._made_in_blocks(blocks, plan, base, label)

    def _calibrate(self, progress: bool | None) -> None:
        """Learn how the norms of generated snippets spread, to match them.

        Of large sets, from a window of some of the videos.
        """
        tables: list[Table] = [(), ()]
        for label in (NORMAL, ABNORMAL):
            if (self.normal, self.abnormal)[1 - label] is None:
                continue
            sources, norms = self.sources(label), []
            count = min(len(sources), MAX_VIDEOS)
            size = max(1, MAX_SNIPPETS // (count * sources.num_crops))
            numbers = [i * len(sources) // count for i in range(count)]
            for number in track(numbers, "norms", show=progress):
                generator = make_generator(self.seed, 4, label, number)
                length, read = sources.opened(number)
                start, starts = 0, length - size + 1
                if starts > 1:
                    device = generator.device
                    drawn = torch.randint(
                        starts, (), generator=generator, device=device
                    )
                    start = int(drawn)
                window = copied(read(slice(start, start + size)))
                made = self.sample(window, label=label, generator=generator)
                norms.append(made.features[:, made.pseudo_mask].norm(dim=-1).numpy())
            tables[label] = quantile_table(norms)
        self.profile = replace(self.profile, generated_norms=tuple(tables))

    def sources(self, label: int) -> VideoSet:
        """Return the real videos that pseudo videos of class `label` are made of.

        Raises:
            ValueError: If the sampler has none.
        """
        videos = self.normal if label == ABNORMAL else self.abnormal
        if videos is None:
            which = "normal" if label == ABNORMAL else "abnormal"
            lost = self._lost.get(which)
            why = f" (it was fitted on {lost})" if lost else ""
            raise ValueError(
                f"the sampler has no {which} videos to make pseudo videos of class "
                f"{label} of{why}: give {which}= to from_pretrained, --{which} to a "
                "command, or use sample"
            )
        return videos

    def draw(
        self,
        num_videos: int | None = None,
        *,
        label: int,
        num_segments: int | None = None,
        generator: torch.Generator | None = None,
    ) -> PseudoVideo:
        """Make pseudo videos of the sampler's own sources.

        Args:
            num_videos: How many; each source serves equally often, a last incomplete
                round is drawn at random. None takes the recipe's `per_video`, two per
                source in the paper.
            label: The class to make, 0 normal or 1 abnormal.
            num_segments: Pool the sources to so many segments first (mean of bins).
                None keeps their snippets; shorter ones are then padded with zeros.
            generator: See `sample`.

        Returns:
            A batch; `unbind()` gives single videos of their true lengths.

        Raises:
            ValueError: If the sampler has no sources of the other class.
        """
        sources = self.sources(label)
        generator = generator or self.generator
        if num_videos is None:
            per_video = self.recipe.per_video * self.recipe.rate(label)
            num_videos = count_pseudo_videos(len(sources), per_video)
            if not num_videos:
                raise ValueError(
                    f"the recipe {self.recipe.name!r} makes no pseudo "
                    f"{CLASS_NAMES[label]} videos unless their number is given: say "
                    "how many"
                )
        if num_videos < 1:
            raise ValueError(f"num_videos: expected at least 1, got {num_videos}")
        order = order_sources(len(sources), num_videos, generator=generator)
        videos = [
            sources[i]
            if num_segments is None
            else to_segments(sources[i], num_segments)
            for i in order
        ]
        lengths = torch.tensor(
            [video.shape[1] for video in videos], dtype=torch.int64, device="cpu"
        )
        num_crops, _, feature_dim = videos[0].shape
        batch = torch.zeros(
            (num_videos, num_crops, int(lengths.max()), feature_dim),
            dtype=torch.float32,
            device="cpu",
        )
        for padded, video in zip(batch, videos, strict=True):
            padded[:, : video.shape[1]] = copied(video)
        kept = self._kept.get((label, num_segments))
        pseudo = self.sample(
            batch,
            label=label,
            generator=generator,
            lengths=lengths,
            codes=None if kept is None else kept.batch(order, batch.shape[2]),
        )
        return pseudo._replace(
            source=torch.tensor(order, dtype=torch.int64, device="cpu")
        )

    @classmethod
    @names_options(Recipe)
    def fit(
        cls,
        normal: VideoSource,
        abnormal: VideoSource | None = None,
        *,
        recipe: str | Recipe | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        layout: Layout | None = None,
        key: str | None = None,
        scores: GivenScores | None = None,
        folder: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        progress: bool | None = None,
        processes: Processes | None = None,
        **choices: Any,
    ) -> PseudoVideoSampler:
        """Learn from training videos: baseline, selection of snippets, VAE.

        Args:
            normal: Normal training videos: a list file, files, arrays or a host's
                dataset, see `VideoSet`.
            abnormal: Abnormal training videos. Without any, pseudo abnormal videos are
                disturbed normal ones, the recipe "one-class", and no pseudo normal
                ones are made.
            recipe: A set of choices by name, or a `Recipe`; "robust" where there are
                abnormal videos, "paper" for the paper's method.
            seed: Seed of everything that is random.
            device: Where to train and to sample.
            layout: Order of the axes of the features, see `VideoSet`.
            key: Name of the features in files that hold several arrays.
            scores: What to select abnormal snippets by, in place of the baseline: a
                function from features `(N, T, D)`, a read-only float32 array, to scores
                `(T,)`, such as a trained host's, or a pair: the scores of all normal
                and of all abnormal videos.
            folder: Where to keep the state of training, to go on after an
                interruption, and the finished checkpoint. None keeps nothing.
            overwrite: Delete the unfinished state of another run in the folder, which
                is refused else. A finished checkpoint is replaced in the end.
            progress: Show bars; None decides by the terminal.
            processes: Who trains the VAE together, on equal shares of each batch: all
                call this with the same arguments and one `folder`, which the first
                writes and the others read in the end. As `torchrun -m vad_pseudoaug
                fit` does. None is this process alone.
            **choices: Single choices of the recipe to change, as `epochs=20`.

        Returns:
            A sampler that has the videos given as its sources.

        Raises:
            ValueError: If videos, recipe or choices are not usable, or the baseline
                finds no abnormal snippet.
        """
        if recipe is None:
            recipe = Recipe.default_name(abnormal=abnormal is not None)
        chosen, device = Recipe.named(recipe, **choices), as_device(device)
        if not 0 <= seed < 2**63:
            raise ValueError(
                f"seed: expected a whole number from 0 to 2^63, got {seed}"
            )
        if processes is not None and folder is None:
            raise ValueError("processes: expected a folder that all of them share")
        given = scores is not None
        normal, abnormal = as_training(
            normal, abnormal, chosen, layout=layout, key=key, given=given
        )
        state_path = None
        if folder is not None:  # what would fail after the training fails before it
            check_place(folder)
            state_path = Path(folder) / TRAINING_STATE
            is_first = processes is None or processes.rank == 0
            if is_first and not overwrite:
                check_state(
                    state_path, chosen, seed=seed, normal=normal, abnormal=abnormal
                )
        with left_as_it_was(normal, abnormal):
            fitted = fit_vae(
                normal,
                abnormal,
                chosen,
                scores=scores,
                seed=seed,
                device=device,
                state_path=state_path,
                overwrite=overwrite,
                progress=progress,
                processes=processes,
            )
            if fitted is None:  # in processes other than the first
                assert processes is not None
                assert folder is not None
                processes.wait()
                return cls.from_pretrained(
                    folder, normal=normal, abnormal=abnormal, device=device
                )
            sampler = cls._of_fitted(
                fitted,
                recipe=chosen,
                normal=normal,
                abnormal=abnormal,
                seed=seed,
                progress=progress,
            )
            if folder is not None and state_path is not None:
                sampler.save_pretrained(folder)
                state_path.unlink(missing_ok=True)
            if processes is not None:
                processes.wait()
            return sampler

    @classmethod
    def _of_fitted(
        cls,
        fitted: Fitted,
        *,
        recipe: Recipe,
        normal: VideoSet | None,
        abnormal: VideoSet | None,
        seed: int,
        progress: bool | None,
    ) -> PseudoVideoSampler:
        """Make a sampler of what was learned of its videos."""
        sampler = cls(
            fitted.vae,
            recipe=recipe,
            normal=normal,
            abnormal=abnormal,
            profile=fitted.profile,
            scorer=fitted.scorer,
            banks=fitted.banks,
            means=fitted.means,
            seed=seed,
        )
        if recipe.norms == "matched":
            sampler._calibrate(progress)
        sampler.history = fitted.history
        sampler._selected = fitted.selected
        sampler.selection = fitted.selected.selection.to_dict()
        return sampler

    def renewed(self, fitted: Fitted, *, progress: bool | None) -> PseudoVideoSampler:
        """Return a sampler of the same recipe and videos with what was learned anew."""
        sampler = self._again(fitted, self.recipe, progress)
        sampler.history = [*self.history, *fitted.history]
        return sampler

    def _again(
        self, fitted: Fitted, recipe: Recipe, progress: bool | None
    ) -> PseudoVideoSampler:
        return self._of_fitted(
            fitted,
            recipe=recipe,
            normal=self.normal,
            abnormal=self.abnormal,
            seed=self.seed,
            progress=progress,
        )

    @names_options(Recipe)
    def with_choices(
        self, *, progress: bool | None = None, **choices: Any
    ) -> PseudoVideoSampler:
        """Return a sampler of the same model that makes pseudo videos another way.

        Nothing is trained: it is what `fit` with these choices would give, to the bit,
        at the cost of a look at the training videos.

        Args:
            progress: Show bars; None decides by the terminal.
            **choices: Choices of the recipe to change, of how pseudo videos are made
                (`Recipe.making`): as `share=0.3` or `norms="free"`.

        Raises:
            ValueError: If a choice is not known, or selection or model depend on it, or
                this sampler was not fitted but read: which snippets were selected is
                not saved.
        """
        recipe = Recipe.named(self.recipe, **choices)
        if recipe.learning != self.recipe.learning:
            learned = set(choices) - set(recipe.making) or set(choices)
            raise ValueError(
                f"selection or model depend on {', '.join(sorted(learned))}: fit anew"
            )
        if self._selected is None or self.normal is None:
            raise ValueError(
                "which snippets were selected is not known of a sampler that was read "
                "or put together: fit anew"
            )
        fitted = measure_fit(
            self.vae,
            self.normal,
            self.abnormal,
            recipe,
            self._selected,
            self.history,
            seed=self.seed,
            device=self.device,
            progress=progress,
        )
        return self._again(fitted, recipe, progress)

    def refresh(
        self,
        scores: GivenScores,
        *,
        epochs: int = 5,
        guard: bool = True,
        progress: bool | None = None,
    ) -> Refreshed:
        """Select anew by a host's current scores, and train on for some epochs.

        The highest snippets of each abnormal video are selected, as by
        `selection="ranked"`, whatever the recipe says. One round of an
        expectation-maximisation: the host that was trained with pseudo videos tells
        which snippets the next ones are made of. What was wrapped or attached before
        keeps the sampler as it was: attach anew.

        Args:
            scores: As in `fit`: a score function, or the scores of all videos.
            epochs: Epochs of training on.
            guard: Leave the sampler as it was if its pseudo videos get less like what
                is selected now. Whether the scores are any good it cannot tell.
            progress: Show a bar; None decides by the terminal.

        Returns:
            Whether the new model was taken, and the figures before and after.

        Raises:
            ValueError: If the sampler has not the videos of both classes, or the scores
                do not fit them or select nothing.
        """
        return refresh(self, scores, epochs=epochs, guard=guard, progress=progress)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a checkpoint to a folder, replacing an old one in one step.

        The paths of the sources go with it where they are files; their features do
        not.
        """
        sources: dict[str, Any] = {}
        for name, videos in (("normal", self.normal), ("abnormal", self.abnormal)):
            sources[name] = None if videos is None else videos.record()
        config = {
            "vae": self.vae.config.to_dict(),
            "recipe": self.recipe.to_dict(),
            "profile": self.profile.to_dict(),
            "seed": self.seed,
            "selection": self.selection,
            "history": self.history,
            "sources": sources,
        }
        write_checkpoint(folder, type(self).__name__, config, self._tensors())

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        normal: VideoSource | None = None,
        abnormal: VideoSource | None = None,
        device: torch.device | str = "cpu",
    ) -> PseudoVideoSampler:
        """Read a sampler that `save_pretrained` or `fit(folder=...)` wrote.

        Args:
            folder: The checkpoint.
            normal: Normal videos for `draw`; None takes the files it was fitted on,
                if all of them are still there and usable. Other files are read in the
                layout and by the key of these; a `VideoSet` has its own.
            abnormal: Abnormal videos for `draw`, likewise.
            device: Where to sample.

        Raises:
            FileNotFoundError: If there is no checkpoint, or no file that is given.
            CheckpointError: If it is broken, of another kind or of a newer version.
            ValueError: If the videos given are not usable, or of another feature size.
        """
        device = as_device(device)
        config, tensors = read_checkpoint(folder, cls.__name__, _ENTRIES)
        parts = split_tensors(tensors)
        vae = MultiTaskVAE.from_tensors(config["vae"], parts.pop("", {}), device=device)
        feature_dim = vae.config.feature_dim
        banks = {
            label: Bank.from_tensors(parts[f"bank-{name}"], feature_dim)
            for label, name in CLASS_NAMES.items()
            if f"bank-{name}" in parts
        }
        try:
            recipe = Recipe(**config["recipe"])
            if (recipe.needs_scorer and "scorer" not in parts) or (
                not banks.keys() >= set(recipe.needs_banks)
            ):
                raise KeyError("the scorer or the banks that the recipe asks for")
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{folder}: an entry is broken: {error}") from error
        scorer = None
        if "scorer" in parts:
            scorer = Baseline.from_tensors(
                parts["scorer"],
                feature_dim,
                mean_crops=recipe.baseline_crops == "mean",
            ).to(device=device)
        given = {"normal": normal, "abnormal": abnormal}
        try:
            records = {name: _as_record(config["sources"][name]) for name in given}
            sampler = cls(
                vae,
                recipe=recipe,
                profile=FeatureProfile.from_dict(config["profile"]),
                scorer=scorer,
                banks=banks,
                means=_read_means(parts.get("means"), feature_dim),
                seed=int(config["seed"]),
            )
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{folder}: an entry is broken: {error}") from error
        sampler.history, sampler.selection = config["history"], config["selection"]
        # What is wrong with videos that are given is not wrong with the checkpoint.
        sampler.normal, sampler.abnormal = (
            sampler._own(
                name, _find(name, records[name], own, feature_dim, sampler._lost)
            )
            for name, own in given.items()
        )
        return sampler

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload a checkpoint with a model card; return the address of the commit.

        The paths of the sources stay here. Recipes that graft take real training
        snippets along, see the card. A card that is there is written anew.

        Args:
            repo_id: "user/name"; made if there is none.
            **options: `run`, the folder of a run that was checked, whose gates go on
                the card; `licence`, an identifier as "mit"; `private`, `revision` and
                `message` as huggingface_hub has them.

        Raises:
            ImportError: If huggingface_hub is not installed; it names the extra.
        """
        return push(self, repo_id, **options)

    @classmethod
    def from_hub(
        cls, repo_id: str, *, revision: str | None = None, **options: Any
    ) -> PseudoVideoSampler:
        """Download what `push_to_hub` wrote, and read it.

        Args:
            repo_id: "user/name".
            revision: Branch, tag or commit; None takes the main branch as it is.
            **options: `normal`, `abnormal` and `device`, see `from_pretrained`.

        Raises:
            ImportError: If huggingface_hub is not installed; it names the extra.
            FileNotFoundError: If there is no checkpoint.
            CheckpointError: If it is no checkpoint that `push_to_hub` wrote.
        """
        return cls.from_pretrained(pull(repo_id, revision=revision), **options)


def _as_lengths(lengths: Tensor | None, num_videos: int, num_snippets: int) -> Tensor:
    """Check true lengths; None are whole videos. Int64 on the CPU."""
    if lengths is None:
        return torch.full((num_videos,), num_snippets, dtype=torch.int64, device="cpu")
    if (
        lengths.is_floating_point()
        or lengths.shape != (num_videos,)
        or not (int(lengths.min()) >= 1 and int(lengths.max()) <= num_snippets)
    ):
        raise ValueError(
            f"lengths: expected {num_videos} whole numbers from 1 to {num_snippets}, "
            f"got {lengths.tolist()}"
        )
    return lengths.to(device="cpu", dtype=torch.int64)


_ENTRIES = (
    "vae",
    "recipe",
    "profile",
    "seed",
    "selection",
    "history",
    "sources",
)


def _read_means(saved: Mapping[str, Tensor] | None, feature_dim: int) -> Tensor | None:
    if saved is None:
        return None
    means = [saved[name] for name in CLASS_NAMES.values()]
    if any(mean.shape != (feature_dim,) for mean in means):
        raise ValueError(f"means: expected those of {feature_dim} features")
    return torch.stack(means).float()


def _as_record(saved: Any) -> dict[str, Any] | None:
    """Check what `VideoSet.record` wrote."""
    if saved is None:
        return None
    files = [Path(file) for file in saved["files"]]
    layout, key = saved["layout"], saved["key"]
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout}")
    if not isinstance(key, str | None):
        raise TypeError(f"key: expected a name, got {key}")
    return {"files": files, "layout": layout, "key": key}


def _find(
    name: str,
    saved: Mapping[str, Any] | None,
    given: VideoSource | None,
    feature_dim: int,
    lost: dict[str, str],
) -> VideoSource | None:
    """Take the videos given, else those saved; note why these are not to be had."""
    if given is not None:
        return as_recorded(given, saved, name=name)
    if saved is None:
        return None
    try:
        gone = next((file for file in saved["files"] if not file.is_file()), None)
        if gone is not None:
            lost[name] = f"{printable(str(gone))}, which is not there"
            return None
        videos = as_recorded(saved["files"], saved, name=name)
    except (OSError, ValueError) as error:  # of another user, or made anew
        lost[name] = f"files that are not usable now: {printable(str(error))}"
        return None
    if videos.feature_dim != feature_dim:
        lost[name] = f"files whose feature size is {videos.feature_dim} now"
        return None
    return videos
