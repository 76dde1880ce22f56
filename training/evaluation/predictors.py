"""Answers of a model in this process: generated for questions, by exact likelihood for labels.

The likelihood of a label is that of its whole token sequence, end-of-sequence included, so that no answer text has to
be parsed and a label that begins another one cannot take its probability.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby, islice

import torch

from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.data.collator import Features, prompt_ids
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample


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

    def predict(self, samples: Sequence[Sample]) -> Iterator[tuple[str, str]]:
        """(id, answer) of each sample as batches finish, in order: text for VQA, the likeliest label otherwise.

        Raises DataError for captions, and as `answers` and `label_log_likelihoods` do.
        """
        for kind, run in groupby(samples, key=lambda sample: sample.kind):
            if kind == "caption":
                raise DataError("captions are not predicted: they have no question")
            while batch := list(islice(run, self._batch_size)):
                if kind == "vqa":
                    texts = self.answers(batch)
                else:
                    texts = [max(scores, key=lambda label: scores[label]) for scores in self._likelihoods(batch)]
                yield from zip([sample.id for sample in batch], texts, strict=True)

    @torch.inference_mode()
    def answers(self, samples: Sequence[Sample]) -> list[str]:
        """Greedy answers in order. Raises DataError naming a sample whose prompt leaves no room for one."""
        texts: list[str] = []
        for start in range(0, len(samples), self._batch_size):
            batch = samples[start : start + self._batch_size]
            prompts = [self._expanded(sample, room=self._max_tokens) for sample in batch]
            features = torch.stack([self._features(sample.image) for sample in batch]).to(self._device)
            texts += map(self._prompt.decode, self._model.generate(prompts, features, max_tokens=self._max_tokens))
        return texts

    def label_probabilities(self, samples: Sequence[Sample]) -> list[dict[str, float]]:
        """For each classification sample its labels' likelihoods, softmaxed over the label set to sum to 1."""
        found = []
        for scores in self._likelihoods(samples):
            shares = torch.tensor(list(scores.values()), dtype=torch.float64).softmax(dim=0)
            found.append(dict(zip(scores, shares.tolist(), strict=True)))
        return found

    def label_log_likelihoods(self, samples: Sequence[Sample]) -> list[dict[str, float]]:
        """For each classification sample: log p(label and end-of-sequence | image, question), natural logarithm."""
        return list(self._likelihoods(samples))

    def _likelihoods(self, samples: Sequence[Sample]) -> Iterator[dict[str, float]]:
        pairs = [(sample, label) for sample in samples for label in sample.labels]
        scores: list[float] = []
        for start in range(0, len(pairs), self._batch_size):
            scores += self._batch_log_likelihoods(pairs[start : start + self._batch_size])
        found = iter(scores)
        for sample in samples:
            yield {label: next(found) for label in sample.labels}

    @torch.inference_mode()
    def _batch_log_likelihoods(self, pairs: Sequence[tuple[Sample, str]]) -> list[float]:
        answers = [self._prompt.answer(label) for _, label in pairs]
        prompts = [self._expanded(sample, room=len(answer)) for (sample, _), answer in zip(pairs, answers, strict=True)]
        width = max(len(before) + len(answer) for before, answer in zip(prompts, answers, strict=True))
        input_ids = torch.full((len(pairs), width), self._model.config.text_config.pad_token_id, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for row, (before, answer) in enumerate(zip(prompts, answers, strict=True)):
            length = len(before) + len(answer)
            input_ids[row, :length] = torch.tensor([*before, *answer])
            attention_mask[row, :length] = 1
        features = torch.stack([self._features(sample.image) for sample, _ in pairs])
        hidden = self._model.hidden_states(
            input_ids.to(self._device), attention_mask.to(self._device), features.to(self._device)
        )
        scores = []
        for row, (before, answer) in enumerate(zip(prompts, answers, strict=True)):
            # The state at a position predicts the next token; only the answer's rows meet the large output head.
            states = hidden[row, len(before) - 1 : len(before) + len(answer) - 1]
            log_p = self._model.language_model.lm_head(states).float().log_softmax(dim=-1)
            scores.append(float(log_p.gather(1, torch.tensor(answer, device=self._device)[:, None]).double().sum()))
        return scores

    def _expanded(self, sample: Sample, *, room: int) -> list[int]:
        ids = self._prompt.expand(prompt_ids(sample, prompt=self._prompt))
        limit = self._model.config.text_config.max_position_embeddings
        if len(ids) + room > limit:
            raise DataError(f"sample {sample.id} needs {len(ids)} + {room} tokens; the model takes {limit}")
        return ids

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device
