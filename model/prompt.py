"""Build prompts as token ids with one template and one tokenizer, in training and in serving. Torch-free.

What comes before the image and what comes after it are encoded apart (as upstream's `tokenizer_image_token` does), with
special tokens switched off: a question that spells `<image>` is text, never an image.
"""

import hashlib
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import CheckpointError, PromptError

TOKENIZER_FILE = "tokenizer.json"
LETTERS = string.ascii_uppercase
"""What options are called."""
PRESENCE = "Does the picture contain {label}?"
"""Question about one label, worded like the most frequent closed question of SLAKE."""
_BY_LETTER = "Answer with the option's letter from the given choices directly."
"""LLaVA's instruction for multiple-choice questions."""


def expand(ids: Sequence[int], config: MedMoEConfig) -> list[int]:
    """Replace each image token by as many copies as the image has embeddings."""
    image, copies = config.image_token_id, config.num_image_tokens
    return [token for id_ in ids for token in ([id_] * copies if id_ == image else [id_])]


def expanded_length(ids: Sequence[int], config: MedMoEConfig) -> int:
    """Return the length of what `expand` returns."""
    return len(ids) + ids.count(config.image_token_id) * (config.num_image_tokens - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What was said before a question."""

    turns: tuple[tuple[str, str], ...] = ()
    """Earlier questions and their answers."""
    system_message: str | None = None
    """None: the template's own."""
    image_turn: int = 0
    """Index of the question that the image came with; `len(turns)` is the one to answer."""


class Prompt:
    """Build prompts and answers as token ids for one checkpoint."""

    def __init__(self, config: MedMoEConfig, *, tokenizer: Tokenizer) -> None:
        """Raise CheckpointError when the tokenizer's vocabulary does not fit config.json."""
        size = config.text_config.vocab_size
        ids = set(tokenizer.get_vocab(with_added_tokens=True).values()) - {config.image_token_id}
        if max(ids, default=-1) >= size:
            raise CheckpointError(f"{TOKENIZER_FILE} has the id {max(ids)}, the model {size} ids")
        # Everything that comes here is data: the template's own special tokens are added by id.
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.config = config
        self._tokenizer = tokenizer
        template = config.prompt
        try:
            self._refuse_special_tokens_as_text()
            self._before = [*self._bos(), *self._encode(template.system), *self._encode(template.user)]
            self._encode(template.separator + template.assistant)
        except CheckpointError:
            raise
        except Exception as error:  # whatever a malformed tokenizer raises when it is first used
            raise CheckpointError(f"{TOKENIZER_FILE} cannot encode this checkpoint's own prompt") from error

    @classmethod
    def from_directory(cls, directory: Path, config: MedMoEConfig) -> "Prompt":
        """Read `directory/tokenizer.json`. Raises CheckpointError when it is missing or malformed."""
        path = directory / TOKENIZER_FILE
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # tokenizers raises bare Exception, and for some files a Rust panic
            raise CheckpointError(f"{path} is not a tokenizers file") from error
        return cls(config, tokenizer=tokenizer)

    @cached_property
    def sha256(self) -> str:
        """Return the hex digest of the template and of how the tokenizer reads it; calibrations are bound to it."""
        read = self.question(self.config.prompt.classification)
        # Calibrations are fitted to single questions, which `turns` does not change.
        template = self.config.prompt.model_dump_json(exclude={"turns"})
        return hashlib.sha256(f"{template} {read}".encode()).hexdigest()

    def _refuse_special_tokens_as_text(self) -> None:
        """Refuse a tokenizer that does not mark special tokens: a question could spell an image or an end."""
        text = self.config.text_config
        special = {self.config.image_token_id, text.eos_token_id, text.pad_token_id, *self._bos()}
        for id_ in special:
            token = self._tokenizer.id_to_token(id_)
            if token is None:
                raise CheckpointError(f"the special token {id_} of config.json is not in {TOKENIZER_FILE}")
            if special & set(self._encode(token)):
                raise CheckpointError(f"token {id_} is not marked as special in {TOKENIZER_FILE}")

    def _bos(self) -> list[int]:
        bos = self.config.text_config.bos_token_id
        return [] if bos is None else [bos]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids if text else []
        return ids

    def question(self, question: str) -> list[int]:
        """Return the prompt's ids up to the point where the answer begins, with one image token standing for the image.

        Raises PromptError when the question is blank.
        """
        if not question.strip():
            raise PromptError("the question is empty")
        template = self.config.prompt
        # One piece, as upstream encodes it: some tokenizers put a space in front of every piece.
        after = template.separator + question.strip() + template.assistant
        return [*self._before, self.config.image_token_id, *self._encode(after)]

    def conversation(self, question: str, history: History) -> list[int]:
        """Return the ids as `question` does, with earlier turns and a system message before the question.

        An end-of-sequence token follows each earlier answer; the text between two such tokens is encoded in one piece,
        as upstream encodes it. Raises PromptError when a text is blank or when the template has no place for it.
        """
        template, turns = self.config.prompt, self.config.prompt.turns
        if turns is None or (history.system_message is not None and not turns.system_message):
            raise PromptError("the checkpoint's template has no place for earlier turns or a system message")
        texts = (question, *(text for turn in history.turns for text in turn))
        if not all(text.strip() for text in texts):
            raise PromptError("a question or an answer is empty")
        ids, text = self._bos(), template.system + template.user
        if history.system_message is not None:
            text = history.system_message.strip() + text.removeprefix(turns.system_message)
        elif history.image_turn == 0:
            ids, text = list(self._before), ""
        for index, (asked, answer) in enumerate((*history.turns, (question, ""))):
            if index > 0:
                text = turns.user
            if index == history.image_turn:
                ids += [*self._encode(text), self.config.image_token_id]
                text = template.separator
            text += asked.strip() + template.assistant
            if index < len(history.turns):
                ids += [*self._encode(f"{text} {answer.strip()}"), self.config.text_config.eos_token_id]
        return [*ids, *self._encode(text)]

    def caption(self, caption: str) -> list[int]:
        """Return the ids of an alignment sample: the image, then its caption (upstream's `plain` template)."""
        return [*self._bos(), self.config.image_token_id, *self.answer(caption)]

    def answer(self, text: str) -> list[int]:
        """Return the ids of an answer, end-of-sequence included. The leading space is part of its first word."""
        if not text.strip():
            raise PromptError("the answer is empty")
        return [*self._encode(" " + text.strip()), self.config.text_config.eos_token_id]

    def classification(self, labels: Sequence[str]) -> str:
        """Return the question that offers `labels`, in sorted order: the same set always gives the same prompt."""
        offered = ", ".join(sorted(label.strip() for label in labels))
        return self.config.prompt.classification.replace("{labels}", offered)

    def choice(self, labels: Sequence[str], *, question: str | None = None) -> str:
        """Return the question whose options are `labels`, lettered in this order.

        Without a `question` of its own it is the checkpoint's classification question. Raises PromptError when there
        are more labels than letters.
        """
        if len(labels) > len(LETTERS):
            raise PromptError(f"there are letters for {len(LETTERS)} options only")
        options = [f"{letter}. {label.strip()}" for letter, label in zip(LETTERS, labels, strict=False)]
        if question is None:
            asked = self.config.prompt.classification.replace("{labels}", ", ".join(options))
        else:
            asked = "\n".join((question.strip(), *options))
        return f"{asked}\n{_BY_LETTER}"

    def letter(self, index: int) -> list[int]:
        """Return the ids of an option's letter at the beginning of an answer."""
        return self.answer(LETTERS[index])[:-1]

    def presence(self, label: str) -> str:
        """Return the yes-or-no question about one label."""
        return PRESENCE.replace("{label}", label.strip())

    def expand(self, ids: Sequence[int]) -> list[int]:
        """Return `ids` with one image token for each of the image's positions."""
        return expand(ids, self.config)

    def expanded_length(self, ids: Sequence[int]) -> int:
        """Return the length of what `expand` returns."""
        return expanded_length(ids, self.config)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()

    def token_text(self, id_: int) -> str:
        """Return the text of one generated token, its leading space included; a special token by its name."""
        # Some tokenizers drop the space of the first token that they decode.
        before = self._encode("a")
        text: str = self._tokenizer.decode([*before, id_], skip_special_tokens=False)
        return text[len(self._tokenizer.decode(before)) :]
