"""From samples to a batch of tensors, with a loss on the answer and nothing else.

Upstream re-tokenises the rendered text to find where each answer starts, and masks the whole sample when the count is
off by one (`preprocess_phi`: "tokenization mismatch"). Here prompt and answer are encoded apart: the border is known.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from medmoe.model.errors import PromptError
from medmoe.model.prompt import Prompt
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample

IGNORE_INDEX = -100
Features = Callable[[Path], torch.Tensor]
"""An image file to the tower's output [patches, vision hidden]."""


def prompt_ids(sample: Sample, *, prompt: Prompt) -> list[int]:
    """Unexpanded ids up to the point where the answer begins; a caption's prompt is the image alone.

    Raises PromptError as `Prompt.question` does.
    """
    if sample.kind == "caption":
        whole = prompt.caption(sample.answer)
        return whole[: len(whole) - len(prompt.answer(sample.answer))]
    return prompt.question(sample.question or prompt.classification(sample.labels))


class Collator:
    """Encodes samples, pads on the right, and stacks the images' features."""

    def __init__(self, prompt: Prompt, *, features: Features) -> None:
        self._prompt = prompt
        self._features = features

    def encode(self, sample: Sample) -> tuple[list[int], list[int]]:
        """Expanded ids and labels, equally long; labels are -100 up to the answer, whose end-of-sequence counts.

        Labels stand under their own tokens (not shifted). Raises DataError naming the sample when it is longer than
        the model's context or cannot be encoded: cutting would train on half an answer.
        """
        try:
            before = self._prompt.expand(prompt_ids(sample, prompt=self._prompt))
            answer = self._prompt.answer(sample.answer)
        except PromptError as error:
            raise DataError(f"sample {sample.id} of {sample.dataset}: {error}") from error
        ids = before + answer
        limit = self._prompt.config.text_config.max_position_embeddings
        if len(ids) > limit:
            raise DataError(f"sample {sample.id} of {sample.dataset} has {len(ids)} tokens; the model takes {limit}")
        return ids, [IGNORE_INDEX] * len(before) + answer

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `labels`: long [B, L]; `features`: [B, patches, vision hidden]; `general`:
        bool [B], the samples of the general domain.

        Raises DataError as `encode` does.
        """
        encoded = [self.encode(sample) for sample in samples]
        shape = (len(encoded), max(len(ids) for ids, _ in encoded))
        input_ids = torch.full(shape, self._prompt.config.text_config.pad_token_id, dtype=torch.long)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORE_INDEX, dtype=torch.long)
        for row, (ids, wanted) in enumerate(encoded):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            attention_mask[row, : len(ids)] = 1
            labels[row, : len(ids)] = torch.tensor(wanted)
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "features": torch.stack([self._features(sample.image) for sample in samples]),
            "general": torch.tensor([sample.domain == "general" for sample in samples]),
        }
