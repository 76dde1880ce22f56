"""Predict with a model in this process: generated text for questions, exact likelihood for labels.

The likelihood of a label is that of its whole token sequence, end-of-sequence included, so that no answer text has to
be parsed and a label that begins another one cannot take its probability.

Samples on one image are answered together: what stands before the question, the image's tokens most of all, is read
once for them. `MedMoE.generate` reads every prompt whole and gives the same answers.
"""

import copy
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import torch
import typer
from transformers import DynamicCache

from medmoe.model.files.calibration_binding import Dtype
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.lora.checkpoint import load_adapted
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.data.batches.collator import Features, prompt_ids
from medmoe.training.data.errors import DataError
from medmoe.training.data.image import read_pixels
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.predict.routing_recorder import RoutingRecorder
from medmoe.training.evaluation.prediction import Predict, Prediction, PromptRouting, by_id, joined, of_labels
from medmoe.training.precision import has_bfloat16


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prefill:
    """Hold a batch of prompts after one pass over them."""

    mask: torch.Tensor
    """[B, L]: tokens; padding stands on the left of what precedes the question, and of the question."""
    cache: DynamicCache
    next_log_p: torch.Tensor
    """[B, V]: of the first answer token."""
    routing: list[PromptRouting | None]


class LocalPredictor:
    """Greedy answers and label probabilities of one model; batches never change an answer's meaning, only speed."""

    def __init__(
        self, model: MedMoE, *, prompt: Prompt, features: Features, max_tokens: int = 32, batch_size: int = 16
    ) -> None:
        self._model = model
        self.prompt = prompt
        self._features = features
        self._max_tokens = max_tokens
        self._batch_size = batch_size
        self._recorder = RoutingRecorder(model)

    @classmethod
    def from_checkpoint(
        cls, directory: Path, *, device: str = "cpu", max_tokens: int = 32, batch_size: int = 16
    ) -> Self:
        """Return the checkpoint of `directory`, with its adapters where it has any. Raises what reading it raises."""
        model = load_adapted(directory).to(device)
        return cls(
            model,
            prompt=Prompt.from_directory(directory, model.config),
            features=ImageFeatures(model, processor=ImageProcessor.from_config(model.config)),
            max_tokens=max_tokens,
            batch_size=batch_size,
        )

    def predict(self, samples: Sequence[Sample]) -> Iterator[Prediction]:
        """Yield one prediction for each sample as batches finish: kind by kind, image by image, else in order.

        Raises DataError for captions and for a sample whose prompt leaves no room for an answer.
        """
        kinds: defaultdict[str, defaultdict[Path, list[Sample]]] = defaultdict(lambda: defaultdict(list))
        for sample in samples:
            kinds[sample.kind][sample.image].append(sample)
        if "caption" in kinds:
            raise DataError("captions are not predicted: they have no question")
        for kind, images in kinds.items():
            ordered = [sample for of_image in images.values() for sample in of_image]
            for start in range(0, len(ordered), self._batch_size):
                batch = ordered[start : start + self._batch_size]
                yield from self._answers(batch) if kind == "vqa" else self._classifications(batch)

    @torch.inference_mode()
    def _answers(self, batch: Sequence[Sample]) -> Iterator[Prediction]:
        prefill = self._prefill(batch, rooms=[self._max_tokens] * len(batch))
        eos = self._model.config.text_config.eos_token_id
        answers: list[list[int]] = [[] for _ in batch]
        sums = [0.0] * len(batch)
        # The rows that have no end yet; the cache holds no others.
        alive, mask, next_log_p = list(range(len(batch))), prefill.mask, prefill.next_log_p
        for step in range(1, self._max_tokens + 1):
            # Greedy decoding takes the likeliest token.
            best = next_log_p.max(dim=-1)
            for row, log_p, token in zip(alive, best.values.tolist(), best.indices.tolist(), strict=True):
                answers[row].append(token)
                sums[row] += log_p
            unfinished = [place for place, row in enumerate(alive) if answers[row][-1] != eos]
            if not unfinished or step == self._max_tokens:
                break
            tokens = best.indices[:, None]
            if len(unfinished) < len(alive):
                kept = torch.tensor(unfinished, device=self._device)
                prefill.cache.batch_select_indices(kept)
                alive, mask, tokens = [alive[place] for place in unfinished], mask[kept], tokens[kept]
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
            embedded = self._model.language_model.get_input_embeddings()(tokens)
            next_log_p = self._log_p(self._forward(embedded, mask, prefill.cache)[:, -1])
        for row, (sample, ids) in enumerate(zip(batch, answers, strict=True)):
            yield Prediction(
                id=sample.id,
                text=self.prompt.decode(ids),
                confidence=math.exp(sums[row]),
                cut=ids[-1] != eos,
                routing=prefill.routing[row],
            )

    def _classifications(self, batch: Sequence[Sample]) -> Iterator[Prediction]:
        likelihoods, routing = self._likelihoods(batch)
        for sample, scores, routed in zip(batch, likelihoods, routing, strict=True):
            yield of_labels(sample.id, scores, routing=routed)

    @torch.inference_mode()
    def _likelihoods(self, batch: Sequence[Sample]) -> tuple[list[dict[str, float]], list[PromptRouting | None]]:
        """Return the labels' likelihoods; each image and question is read once, and the labels continue from there."""
        answers = [[self.prompt.answer(label) for label in sample.labels] for sample in batch]
        prefill = self._prefill(batch, rooms=[max(map(len, ids)) for ids in answers])
        pairs = [(row, ids) for row, labels in enumerate(answers) for ids in labels]
        scores: list[float] = []
        for start in range(0, len(pairs), self._batch_size):
            scores += self._continue(prefill, pairs[start : start + self._batch_size])
        found = iter(scores)
        return [{label: next(found) for label in sample.labels} for sample in batch], prefill.routing

    def _prefill(self, batch: Sequence[Sample], *, rooms: Sequence[int]) -> _Prefill:
        """Read first what stands up to the image's end, once for each image, then the rest of each prompt."""
        prompts = [self._expanded(sample, room=room) for sample, room in zip(batch, rooms, strict=True)]
        image_token = self._model.config.image_token_id
        borders = [len(ids) - ids[::-1].index(image_token) for ids in prompts]
        starts = [(sample.image, tuple(ids[:end])) for sample, ids, end in zip(batch, prompts, borders, strict=True)]
        different = list(dict.fromkeys(starts))
        features = torch.stack([self._features(image) for image, _ in different]).to(self._device)
        cache = DynamicCache(config=self._model.language_model.config)
        ids, before = self._padded([start for _, start in different])
        with self._recorder.prompts(before, image=ids == image_token) as of_images:
            self._forward(self._model.embed(ids, self._model.projector(features)), before, cache)
        places = [different.index(start) for start in starts]
        rows = torch.tensor(places, device=self._device)
        cache.batch_select_indices(rows)
        ids, after = self._padded([ids[end:] for ids, end in zip(prompts, borders, strict=True)])
        mask = torch.cat([before[rows], after], dim=1)
        with self._recorder.prompts(after, image=torch.zeros_like(after)) as of_questions:
            hidden = self._forward(self._model.language_model.get_input_embeddings()(ids), mask, cache)
        routing = [joined(of_images[place], rest) for place, rest in zip(places, of_questions, strict=True)]
        return _Prefill(mask=mask, cache=cache, next_log_p=self._log_p(hidden[:, -1]), routing=routing)

    def _forward(self, embedded: torch.Tensor, mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """Return the decoder output [B, L, D] for what follows on `cache`; `mask` [B, cached + L] covers both."""
        output = self._model.language_model.model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, -embedded.shape[1] :],
            past_key_values=cache,
            use_cache=True,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def _continue(self, prefill: _Prefill, pairs: Sequence[tuple[int, list[int]]]) -> list[float]:
        """Return the log-likelihood of each (prompt row, answer ids)."""
        rows = torch.tensor([row for row, _ in pairs], device=self._device)
        width = max(len(ids) for _, ids in pairs) - 1
        input_ids = torch.full((len(pairs), width), self._model.config.text_config.pad_token_id, device=self._device)
        present = torch.zeros_like(input_ids)
        for place, (_, ids) in enumerate(pairs):
            input_ids[place, : len(ids) - 1] = torch.tensor(ids[:-1], device=self._device)
            present[place, : len(ids) - 1] = 1
        cache = copy.deepcopy(prefill.cache)
        cache.batch_select_indices(rows)
        embedded = self._model.language_model.get_input_embeddings()(input_ids)
        hidden = self._forward(embedded, torch.cat([prefill.mask[rows], present], dim=1), cache)
        scores = []
        for place, (row, ids) in enumerate(pairs):
            tokens = torch.tensor(ids, device=self._device)
            # The state at a token predicts the next one; only the answer's own rows meet the large output head.
            rest = self._log_p(hidden[place, : len(ids) - 1]).gather(1, tokens[1:, None])
            scores.append(float(prefill.next_log_p[row, tokens[0]].double() + rest.double().sum()))
        return scores

    def _log_p(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model.language_model.lm_head(hidden)
        return logits.float().log_softmax(dim=-1)

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ids and mask [B, L], padded on the left."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._model.config.text_config.pad_token_id, device=self._device)
        mask = torch.zeros_like(ids)
        for row, row_ids in enumerate(rows):
            ids[row, width - len(row_ids) :] = torch.tensor(row_ids, device=self._device)
            mask[row, width - len(row_ids) :] = 1
        return ids, mask

    def _expanded(self, sample: Sample, *, room: int) -> list[int]:
        ids = self.prompt.expand(prompt_ids(sample, prompt=self.prompt))
        limit = self._model.config.text_config.max_position_embeddings
        if len(ids) + room > limit:
            raise DataError(f"sample {sample.id} needs {len(ids)} + {room} tokens; the model takes {limit}")
        return ids

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device


def with_progress(predict: Predict) -> Predict:
    """Return the same predictions; standard output stays free for the report."""

    def watched(samples: Sequence[Sample]) -> Iterator[Prediction]:
        with typer.progressbar(predict(samples), length=len(samples), label="answering", file=sys.stderr) as bar:
            yield from bar

    return watched


def served_formats(device: str) -> tuple[Dtype, ...]:
    """Return the number formats that a service on such a device computes in."""
    return ("float32", "bfloat16") if has_bfloat16(torch.device(device)) else ("float32",)


def predict_in_formats(
    predictor: LocalPredictor, samples: Sequence[Sample], *, dtypes: Sequence[Dtype], device: str = "cpu"
) -> dict[Dtype, dict[str, Prediction]]:
    """Return the prediction of each sample by its id, in each number format."""
    found: dict[Dtype, dict[str, Prediction]] = {}
    for dtype in dtypes:
        wanted = getattr(torch, dtype)
        with torch.autocast(torch.device(device).type, dtype=wanted, enabled=wanted != torch.float32):
            found[dtype] = by_id(with_progress(predictor.predict)(samples))
    return found


_REMEMBERED = 64


class ImageFeatures:
    """Compute the tower's output [patches, vision hidden] of an image file, on the model's device."""

    def __init__(self, model: MedMoE, *, processor: ImageProcessor) -> None:
        self._model = model
        self._processor = processor
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self._compute)

    def __call__(self, path: Path) -> torch.Tensor:
        """Raise DataError naming the file when it is not a readable image."""
        return self._remembered(path)

    @torch.no_grad()  # not inference_mode: its tensors could not feed a trained projector
    def _compute(self, path: Path) -> torch.Tensor:
        pixels = read_pixels(path, processor=self._processor)
        device = next(self._model.parameters()).device
        features: torch.Tensor = self._model.vision_tower(pixels[None].to(device))
        return features[0]
