"""From real snippets of a video to generated ones (section 3.2.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .bank import Bank
from .baseline import Baseline
from .codes import Codes
from .generation import CHUNK_ROWS, Plan, draw_plan, translate_rows
from .items import as_tensor, copied
from .one_class import disturb, draw_kind
from .profile import FeatureProfile
from .recipe import Recipe
from .vae import ABNORMAL, CLASS_NAMES, NORMAL, MultiTaskVAE


def _are_finite(values: Tensor) -> bool:
    """Tell whether all values are finite, without a copy of them."""
    # Where one is not, the sum is not; but that may be beyond what the dtype holds, and
    # then both ends tell. (Not `aminmax`: torch 2.1 has none of float16 on a CPU.)
    return bool(values.sum().isfinite()) or bool(
        values.min().isfinite() and values.max().isfinite()
    )


class SnippetMaker:
    """Makes snippets by a recipe, with all that the recipe asks for.

    Args:
        vae: A trained model.
        recipe: How snippets are made; None is the paper's.
        profile: What generated features are held to, as not to be negative.
        scorer: Scores snippets where the recipe asks for it: which ones of an abnormal
            video to replace, and which candidate is the likeliest.
        banks: For each class real runs, where the recipe grafts or disturbs.
        means: `(2, D)`, the class means, normal first, where the recipe shifts.

    Raises:
        ValueError: If something is missing that the recipe asks for.
    """

    def __init__(
        self,
        vae: MultiTaskVAE,
        recipe: Recipe | None = None,
        *,
        profile: FeatureProfile | None = None,
        scorer: Baseline | None = None,
        banks: Mapping[int, Bank] | None = None,
        means: Tensor | None = None,
    ):
        self.vae = vae.eval()
        self.recipe = recipe or Recipe.named("paper")
        self.profile = profile or FeatureProfile()
        self.scorer = scorer
        if self.recipe.needs_scorer and scorer is None:
            raise ValueError("the recipe asks for scores: expected a scorer, got none")
        self.banks = dict(banks or {})
        lacking = [
            label for label in self.recipe.needs_banks if label not in self.banks
        ]
        if lacking:
            raise ValueError(
                f"the recipe's translation {self.recipe.translation!r} asks for a bank "
                f"of runs of class {lacking[0]}, got none"
            )
        self.means = means
        if self.recipe.translation == "shift" and (
            means is None or means.shape != (2, self.feature_dim)
        ):
            raise ValueError(
                f"the recipe shifts by class means: expected (2, {self.feature_dim}), "
                f"got {None if means is None else tuple(means.shape)}"
            )

    @property
    def feature_dim(self) -> int:
        """Feature size D."""
        return self.vae.config.feature_dim

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.vae.mean_head.weight.device

    @cached_property
    def _normal_spread(self) -> Tensor:
        """The spread of each feature of the normal runs in the bank, `(D,)`."""
        return self.banks[NORMAL].spread()

    @torch.no_grad()
    def encode(self, features: Tensor | NDArray[Any]) -> Codes:
        """Return what the encoder makes of snippets `(..., D)`, for `sample(codes=)`.

        Raises:
            ValueError: If the feature size is another.
        """
        given = as_tensor(features)
        self._check_feature_size(given)
        rows, weight = given.reshape(-1, self.feature_dim), self.vae.mean_head.weight
        parts = [self.vae.encode(part.to(weight)) for part in rows.split(CHUNK_ROWS)]
        shape = (*given.shape[:-1], self.vae.config.latent_dim)
        mean, log_var = (torch.cat(own).view(shape) for own in zip(*parts, strict=True))
        return Codes(mean, log_var)

    def _as_batch(self, features: Tensor) -> Tensor:
        """Check sources, and return them as a batch `(B, N, T, D)`."""
        if features.ndim not in (2, 3, 4) or 0 in features.shape:
            raise ValueError(
                f"features: expected (T, D), (N, T, D) or (B, N, T, D), got shape "
                f"{tuple(features.shape)}"
            )
        self._check_feature_size(features)
        if not _are_finite(features):
            raise ValueError("features: expected finite values, got NaN or infinity")
        return features.reshape((1,) * (4 - features.ndim) + features.shape)

    def _check_feature_size(self, features: Tensor) -> None:
        if features.shape[-1:] != (self.feature_dim,):
            raise ValueError(
                f"features: the sampler was fitted on feature size {self.feature_dim}, "
                f"got shape {tuple(features.shape)}"
            )

    def _check_codes_of_use(self, label: int) -> None:
        if not self.recipe.decodes_source(label):
            raise ValueError(
                f"codes: the recipe's translation {self.recipe.translation!r} decodes "
                f"none of the source's codes for pseudo {CLASS_NAMES[label]} videos"
            )

    def _check_codes(self, codes: Codes, features: Tensor) -> None:
        expected = (*features.shape[:-1], self.vae.config.latent_dim)
        for name, own in codes._asdict().items():
            if own.shape != expected:
                raise ValueError(
                    f"codes: expected a {name} of shape {expected}, as encode makes of "
                    f"these features, got {tuple(own.shape)}"
                )

    def fingerprint(self) -> str:
        """Return a short text that differs from one model or recipe to another."""
        digest = hashlib.sha256(repr((self.recipe, self.profile)).encode())
        for tensor in self._tensors().values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _tensors(self) -> dict[str, Tensor]:
        """Return all that was learned, under the names that a checkpoint has."""
        parts: dict[str, dict[str, Tensor]] = {}
        if self.scorer is not None:
            parts["scorer"] = self.scorer.state_dict()
        for label, bank in self.banks.items():
            parts[f"bank-{CLASS_NAMES[label]}"] = bank._asdict()
        if self.means is not None:
            parts["means"] = dict(zip(CLASS_NAMES.values(), self.means, strict=True))
        beside = {f"{p}.{k}": v for p, own in parts.items() for k, v in own.items()}
        return {**self.vae.state_dict(), **beside}

    def _plan(
        self,
        length: int,
        blocks: Iterable[Tensor],
        label: int,
        generator: torch.Generator,
    ) -> Plan:
        """Draw the plan of a video of so many snippets, given in blocks."""
        return draw_plan(
            length,
            label,
            self.recipe,
            latent_dim=self.vae.config.latent_dim,
            generator=generator,
            correlation=self.profile.correlation,
            suspicious=self._suspicious(blocks, label),
        )

    def _suspicious(self, blocks: Iterable[Tensor], label: int) -> Tensor | None:
        """Tell which snippets of a video in blocks to replace, `(T,)`; None are all."""
        if self.scorer is None or label == ABNORMAL or self.recipe.scope == "all":
            return None
        weight = self.vae.mean_head.weight
        parts = [self.scorer.score_crops(block.to(weight), dim=0) for block in blocks]
        scores = torch.cat(parts)
        # At least one: a pseudo video is never its source.
        return (scores > self.profile.suspicious) | (scores == scores.max())

    def _base(
        self, video: Tensor, plan: Plan, label: int, generator: torch.Generator
    ) -> Tensor | None:
        """Return what the generated snippets of a video start from, `(N, M, D)`.

        None are the snippets that they replace.
        """
        where = plan.where
        if self.recipe.translation == "graft":
            return self.banks[label].draw(video, len(where), generator)
        if self.recipe.translation == "disturb" and label == ABNORMAL:
            return disturb(
                video,
                where,
                draw_kind(self.recipe.disturbance, generator),
                bank=self.banks[NORMAL],
                vae=self.vae,
                spread=self._normal_spread,
                noise=plan.noise[0],
                strength=plan.strength,
                generator=generator,
            )
        return None

    @torch.no_grad()
    def _made_in_blocks(
        self,
        blocks: Iterable[tuple[int, NDArray[np.float32]]],
        plan: Plan,
        base: Tensor | None,
        label: int,
    ) -> Iterator[Tensor]:
        """Carry out the plan of a video that comes in blocks `(N, t, D)`."""
        for first, block in blocks:
            features = copied(block)
            own = (plan.where >= first) & (plan.where < first + features.shape[1])
            if own.any():
                part = plan.part(own, first)
                source = features.transpose(0, 1)[part.where]  # (M, N, D)
                start = source if base is None else base.transpose(0, 1)[own]
                made = self._generate(source, start, [part], label)
                features.transpose(0, 1)[part.where] = made.to(features)
            yield features

    def _generate(
        self,
        source: Tensor,
        base: Tensor,
        plans: Sequence[Plan],
        label: int,
        codes: Codes | None = None,
    ) -> Tensor:
        """Generate snippets by the plans of their videos.

        Args:
            source: `(M, N, D)`, the snippets that are replaced.
            base: `(M, N, D)`, what the generated ones start from.
            plans: Of the videos, of M snippets in all.
            label: The class that is made.
            codes: `(M, N, latent)`, of `base`; None encodes it.
        """
        weight = self.vae.mean_head.weight
        num_crops = source.shape[1]
        rows = base.flatten(0, 1).to(weight)  # (M * N, D)
        if codes is not None:
            codes = Codes(*(own.flatten(0, 1) for own in codes))

        def spread(values: Tensor) -> Tensor:  # the crops of a snippet share them
            return values.to(weight).repeat_interleave(num_crops, dim=0)

        strength = spread(torch.cat([plan.strength for plan in plans]))
        fade = spread(torch.cat([plan.fade for plan in plans]))[:, None]
        best = best_scores = None
        for candidate in range(self.recipe.candidates):
            noise = spread(torch.cat([plan.noise[candidate] for plan in plans]))
            made = self._translate(rows, noise, strength, label, codes)
            if self.recipe.taper:
                kept = source.flatten(0, 1).to(weight)
                made = kept + fade * (made - kept)
            made = self._finish(made, label).view_as(source)
            if self.scorer is None or self.recipe.candidates == 1:
                return made
            scores = self.scorer.score_crops(made, dim=1)  # (M,)
            scores = scores * (1 if label == ABNORMAL else -1)
            if best is None or best_scores is None:
                best, best_scores = made, scores
            better = scores > best_scores
            best = torch.where(better[:, None, None], made, best)
            best_scores = torch.where(better, scores, best_scores)
        assert best is not None
        return best

    def _translate(
        self,
        rows: Tensor,
        noise: Tensor,
        strength: Tensor,
        label: int,
        codes: Codes | None = None,
    ) -> Tensor:
        """Translate rows `(M, D)` as the recipe says."""
        how = self.recipe.translation
        if how == "disturb" and label == ABNORMAL:
            return rows  # disturbed already
        if how in ("swap", "disturb"):
            return translate_rows(self.vae, rows, noise, label, codes=codes)
        if how == "shift" and self.means is not None:
            means = self.means.to(rows)
            return rows + strength[:, None] * (means[label] - means[1 - label])
        against = label if how == "graft" else None
        return translate_rows(
            self.vae,
            rows,
            noise,
            label,
            strength=strength,
            against=against,
            codes=codes,
        )

    def _finish(self, rows: Tensor, label: int) -> Tensor:
        """Hold generated snippets `(M, D)` to what real ones look like."""
        if self.profile.non_negative:
            rows = rows.clamp(min=0)
        if self.recipe.norms == "matched" and self.profile.generated_norms:
            rows = self.profile.match_norms(rows, label)
        if self.profile.unit_norm:
            return functional.normalize(rows, dim=1)
        if self.profile.norm_channel:
            others = rows[:, :-1]
            return torch.cat((others, others.norm(dim=1, keepdim=True)), dim=1)
        return rows
