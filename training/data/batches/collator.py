"""Collate samples to a batch of tensors, with a loss on the answer alone.

Upstream re-tokenises the rendered text to find where each answer starts, and masks the whole sample when the count is
off by one (`preprocess_phi`: "tokenization mismatch"). Here prompt and answer are encoded apart: the border is known.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from medmoe.model.errors import PromptError
from medmoe.model.prompt import Prompt
from medmoe.training.data.batches.packing import PADDING, PREFIX, Pack
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample

IGNORE_INDEX = -100
Features = Callable[[Path], torch.Tensor]
"""An image file to the tower's output [patches, vision hidden]."""
ViewFeatures = Callable[[Path, int], torch.Tensor]
"""An image file and the number of a view of it, 0 for the image itself, to the same."""


def moved(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Move a batch to the device of the model that will compute it; Trainer does so itself."""
    return {name: column.to(device) for name, column in batch.items()}


def prompt_ids(sample: Sample, *, prompt: Prompt) -> list[int]:
    """Return the unexpanded ids up to the point where the answer begins; a caption's prompt is the image alone.

    Raises PromptError as `Prompt.question` does.
    """
    if sample.kind == "caption":
        whole = prompt.caption(sample.answer)
        return whole[: len(whole) - len(prompt.answer(sample.answer))]
    return prompt.question(sample.question or prompt.classification(sample.labels))


class Collator:
    """Encode samples, pad them on the right, and stack the images' features."""

    def __init__(self, prompt: Prompt, *, features: ViewFeatures) -> None:
        self._prompt = prompt
        self._features = features

    def encode(self, sample: Sample) -> tuple[list[int], list[int]]:
        """Return equally long ids (expanded) and labels; labels are -100 up to the answer, whose end-of-sequence
        counts.

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

    def __call__(self, packs: Sequence[Pack]) -> dict[str, torch.Tensor]:
        """Return one row a pack: `input_ids`, `attention_mask`, `labels`: long [B, L]; `features` [B, patches, vision
        hidden]; `general`: bool [B], the packs of the general domain. Where a pack holds several samples, also
        `segments` and `position_ids`, long [B, L].

        Raises DataError as `encode` does.
        """
        rows = [self._row(pack) for pack in packs]
        fill = {"input_ids": self._prompt.config.text_config.pad_token_id, "labels": IGNORE_INDEX, "segments": PADDING}
        columns = {
            name: pad_sequence([row[name] for row in rows], batch_first=True, padding_value=fill.get(name, 0))
            for name in rows[0]
        }
        columns["attention_mask"] = (columns["segments"] != PADDING).long()
        if all(len(pack) == 1 for pack in packs):
            # An ordinary causal row: attention without a mask of its own is faster.
            del columns["segments"], columns["position_ids"]
        return columns | {
            "features": torch.stack([self._features(pack[0].image, pack[0].view) for pack in packs]),
            "general": torch.tensor([pack[0].domain == "general" for pack in packs]),
        }

    def length(self, pack: Pack) -> int:
        """Return the number of tokens of the pack's row."""
        return len(self._row(pack)["input_ids"])

    def _row(self, pack: Pack) -> dict[str, torch.Tensor]:
        """Return the pack's prefix, which is its first sample's up to the last image token, and the rest of each
        sample.
        """
        encoded = [self.encode(sample) for sample in pack]
        first = encoded[0][0]
        border = len(first) - first[::-1].index(self._prompt.config.image_token_id)
        if any(ids[:border] != first[:border] for ids, _ in encoded):
            raise DataError(f"samples packed with {pack[0].id} of {pack[0].dataset} have other prefixes")
        ids, labels, segments, positions = first[:border], [IGNORE_INDEX] * border, [PREFIX] * border, [*range(border)]
        for number, (one, wanted) in enumerate(encoded, start=PREFIX + 1):
            ids = ids + one[border:]
            labels += wanted[border:]
            segments += [number] * (len(one) - border)
            positions += range(border, len(one))
        row = {"input_ids": ids, "labels": labels, "segments": segments, "position_ids": positions}
        return {name: torch.tensor(values) for name, values in row.items()}
