"""Answers of a model in this process: generated for questions, by exact likelihood for labels.

The likelihood of a label is that of its whole token sequence, end-of-sequence included, so that no answer text has to
be parsed and a label that begins another one cannot take its probability.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Self

import torch
from transformers import DynamicCache

from medmoe.model.image_processor import ImageProcessor
from medmoe.model.lora.checkpoint import load_adapted
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.data.collator import Features, prompt_ids
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.image_features import ImageFeatures
from medmoe.training.evaluation.prediction import Prediction, PromptRouting, of_labels
from medmoe.training.evaluation.prompt_routing import RoutingWatch


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """A batch of prompts after one pass over them."""

    mask: torch.Tensor
    """[B, L], padded on the left."""
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
        self._prompt = prompt
        self._features = features
        self._max_tokens = max_tokens
        self._batch_size = batch_size
        self._watch = RoutingWatch(model)

    @classmethod
    def from_checkpoint(
        cls, directory: Path, *, device: str = "cpu", max_tokens: int = 32, batch_size: int = 16
    ) -> Self:
        """The checkpoint of `directory`, with its adapters where it has any. Raises what reading it raises."""
        model = load_adapted(directory).to(device)
        return cls(
            model,
            prompt=Prompt.from_directory(directory, model.config),
            features=ImageFeatures(model, processor=ImageProcessor.from_config(model.config)),
            max_tokens=max_tokens,
            batch_size=batch_size,
        )

    def predict(self, samples: Sequence[Sample]) -> Iterator[Prediction]:
        """One prediction for each sample, in order, as batches finish.

        Raises DataError for captions and for a sample whose prompt leaves no room for an answer.
        """
        for kind, run in groupby(samples, key=lambda sample: sample.kind):
            if kind == "caption":
                raise DataError("captions are not predicted: they have no question")
            while batch := list(islice(run, self._batch_size)):
                yield from self._answers(batch) if kind == "vqa" else self._classifications(batch)

    def label_log_likelihoods(self, samples: Sequence[Sample]) -> list[dict[str, float]]:
        """For each classification sample: log p(label and end-of-sequence | image, question), natural logarithm."""
        found: list[dict[str, float]] = []
        for start in range(0, len(samples), self._batch_size):
            found += self._likelihoods(samples[start : start + self._batch_size])[0]
        return found

    @torch.inference_mode()
    def _answers(self, batch: Sequence[Sample]) -> Iterator[Prediction]:
        prompts = [self._expanded(sample, room=self._max_tokens) for sample in batch]
        features = torch.stack([self._features(sample.image) for sample in batch]).to(self._device)
        steps: list[torch.Tensor] = []
        # Greedy decoding takes the likeliest token, so its log-probability is the largest of the head's output.
        hook = self._model.language_model.lm_head.register_forward_hook(
            lambda _head, _inputs, logits: steps.append(logits.float().log_softmax(-1).amax(-1))
        )
        try:
            with self._watch.prompts(self._mask(prompts)) as routing:
                answers = self._model.generate(prompts, features, max_tokens=self._max_tokens)
        finally:
            hook.remove()
        log_p = torch.stack(steps, dim=1).double().cpu()
        eos = self._model.config.text_config.eos_token_id
        for row, (sample, ids) in enumerate(zip(batch, answers, strict=True)):
            yield Prediction(
                id=sample.id,
                text=self._prompt.decode(ids),
                confidence=math.exp(float(log_p[row, : len(ids)].sum())),
                cut=ids[-1] != eos,
                routing=routing[row],
            )

    def _classifications(self, batch: Sequence[Sample]) -> Iterator[Prediction]:
        likelihoods, routing = self._likelihoods(batch)
        for sample, scores, routed in zip(batch, likelihoods, routing, strict=True):
            yield of_labels(sample.id, scores, routing=routed)

    @torch.inference_mode()
    def _likelihoods(self, batch: Sequence[Sample]) -> tuple[list[dict[str, float]], list[PromptRouting | None]]:
        """Each image and question is read once; the labels continue from there."""
        answers = [[self._prompt.answer(label) for label in sample.labels] for sample in batch]
        read = self._read(batch, rooms=[max(map(len, ids)) for ids in answers])
        pairs = [(row, ids) for row, labels in enumerate(answers) for ids in labels]
        scores: list[float] = []
        for start in range(0, len(pairs), self._batch_size):
            scores += self._continue(read, pairs[start : start + self._batch_size])
        found = iter(scores)
        return [{label: next(found) for label in sample.labels} for sample in batch], read.routing

    def _read(self, batch: Sequence[Sample], *, rooms: Sequence[int]) -> _Read:
        prompts = [self._expanded(sample, room=room) for sample, room in zip(batch, rooms, strict=True)]
        mask = self._mask(prompts)
        input_ids = torch.full_like(mask, self._model.config.text_config.pad_token_id)
        for row, ids in enumerate(prompts):
            input_ids[row, mask.shape[1] - len(ids) :] = torch.tensor(ids, device=self._device)
        # One pass through the projector for each image, however many samples show it.
        places = {image: place for place, image in enumerate(dict.fromkeys(sample.image for sample in batch))}
        features = torch.stack([self._features(image) for image in places]).to(self._device)
        shown = self._model.projector(features)[[places[sample.image] for sample in batch]]
        cache = DynamicCache(config=self._model.language_model.config)
        with self._watch.prompts(mask) as routing:
            output = self._model.language_model.model(
                inputs_embeds=self._model.embed(input_ids, shown),
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                past_key_values=cache,
                use_cache=True,
            )
        next_log_p = self._log_p(output.last_hidden_state[:, -1])
        return _Read(mask=mask, cache=cache, next_log_p=next_log_p, routing=routing)

    def _continue(self, read: _Read, pairs: Sequence[tuple[int, list[int]]]) -> list[float]:
        """Log-likelihood of each (prompt row, answer ids)."""
        rows = torch.tensor([row for row, _ in pairs], device=self._device)
        width = max(len(ids) for _, ids in pairs) - 1
        input_ids = torch.full((len(pairs), width), self._model.config.text_config.pad_token_id, device=self._device)
        present = torch.zeros_like(input_ids)
        for place, (_, ids) in enumerate(pairs):
            input_ids[place, : len(ids) - 1] = torch.tensor(ids[:-1], device=self._device)
            present[place, : len(ids) - 1] = 1
        mask = read.mask[rows]
        cache = copy.deepcopy(read.cache)
        cache.batch_select_indices(rows)
        output = self._model.language_model.model(
            inputs_embeds=self._model.language_model.get_input_embeddings()(input_ids),
            attention_mask=torch.cat([mask, present], dim=1),
            position_ids=mask.sum(-1, keepdim=True) + torch.arange(width, device=self._device),
            past_key_values=cache,
            use_cache=True,
        )
        scores = []
        for place, (row, ids) in enumerate(pairs):
            tokens = torch.tensor(ids, device=self._device)
            # The state at a token predicts the next one; only the answer's own rows meet the large output head.
            rest = self._log_p(output.last_hidden_state[place, : len(ids) - 1]).gather(1, tokens[1:, None])
            scores.append(float(read.next_log_p[row, tokens[0]].double() + rest.double().sum()))
        return scores

    def _log_p(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model.language_model.lm_head(hidden)
        return logits.float().log_softmax(dim=-1)

    def _mask(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """[B, L] of ones where a prompt padded on the left has its tokens, as `MedMoE.generate` pads."""
        lengths = torch.tensor([[len(ids)] for ids in prompts], device=self._device)
        width = int(lengths.max())
        return (torch.arange(width, device=self._device) >= width - lengths).long()

    def _expanded(self, sample: Sample, *, room: int) -> list[int]:
        ids = self._prompt.expand(prompt_ids(sample, prompt=self._prompt))
        limit = self._model.config.text_config.max_position_embeddings
        if len(ids) + room > limit:
            raise DataError(f"sample {sample.id} needs {len(ids)} + {room} tokens; the model takes {limit}")
        return ids

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device
