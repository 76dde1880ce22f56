"""Ask about a labelled image in several ways, so that labels are read and not recited.

A label set is also offered in other spellings, in part, in groups of labels, as a yes-or-no question about one label,
as a sentence of another form, and now and then without the true label. The seed and the sample's id decide which of
these a sample gets.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from medmoe.model.prompt import PRESENCE
from medmoe.training.data.sample import Sample
from medmoe.training.data.wordings.label_words import COARSE, HELD_OUT, SPELLINGS

NONE = "none of these"
_SENTENCES = (
    "What is shown here: {}?",
    "Is this {}?",
    "Choose one: {}.",
    "Which label fits the image best: {}?",
    "Classify the picture: {}.",
    "What does the image show, {}?",
)
_Rewording = Callable[[Sample, random.Random], Sample | None]


def with_wordings(samples: Sequence[Sample], *, count: int, seed: int) -> list[Sample]:
    """Return each classification sample, followed by `count` other ways of asking what it asks."""
    found: list[Sample] = []
    times: Counter[str] = Counter()
    for sample in samples:
        found.append(sample)
        # A sample that is there several times is asked in other ways each time.
        first = count * times[sample.id]
        times[sample.id] += 1
        rng = random.Random(f"{seed}/wordings/{sample.id}/{first}")
        for number in range(first, first + count):
            found.append(replace(_reworded(sample, rng), id=f"{sample.id}/wording/{number}"))
    return found


def paraphrased(sample: Sample, number: int) -> Sample | None:
    """Return the sample under spelling `number` (0 to 2) of its labels that training never sees; None without one."""
    spellings = HELD_OUT.get(frozenset(sample.labels), ())
    if number >= len(spellings):
        return None
    return _renamed(sample, spellings[number])


def _reworded(sample: Sample, rng: random.Random) -> Sample:
    rewordings: list[_Rewording] = [_respelt, _subset, _sentence, _presence, _group, _with_none]
    (reword,) = rng.choices(rewordings, weights=(30, 20, 18, 15, 12, 5))
    return reword(sample, rng) or _respelt(sample, rng)


def _respelt(sample: Sample, rng: random.Random) -> Sample:
    return _renamed(sample, _words(sample, rng))


def _renamed(sample: Sample, words: Mapping[str, str]) -> Sample:
    return replace(sample, labels=tuple(words[label] for label in sample.labels), answer=words[sample.answer])


def _subset(sample: Sample, rng: random.Random) -> Sample | None:
    """Return the sample with the true label and some of the others; None for a set of two labels."""
    if len(sample.labels) < 3:
        return None
    others = [label for label in sample.labels if label != sample.answer]
    kept = {sample.answer, *rng.sample(others, rng.randint(1, len(others) - 1))}
    words = _words(sample, rng)
    return replace(
        sample,
        labels=tuple(words[label] for label in sample.labels if label in kept),
        answer=words[sample.answer],
    )


def _sentence(sample: Sample, rng: random.Random) -> Sample:
    words = _words(sample, rng)
    labels = rng.sample([words[label] for label in sample.labels], len(sample.labels))
    offered = ", ".join(labels[:-1]) + rng.choice((" or ", ", ")) + labels[-1]
    return replace(sample, question=rng.choice(_SENTENCES).format(offered), labels=(), answer=words[sample.answer])


def _presence(sample: Sample, rng: random.Random) -> Sample:
    """Return a question about the presence of a label, with yes and no about equally often for any number of labels."""
    there = rng.random() < 0.5
    label = sample.answer if there else rng.choice([label for label in sample.labels if label != sample.answer])
    asked = PRESENCE.format(label=_words(sample, rng)[label])
    return replace(sample, question=asked, labels=(), answer="Yes" if there else "No", answer_type="closed")


def _group(sample: Sample, rng: random.Random) -> Sample | None:
    groupings = COARSE.get(frozenset(sample.labels))
    if groupings is None:
        return None
    grouping = rng.choice(groupings)
    words = [rng.choice(names) for names, _ in grouping]
    answer = next(word for word, (_, labels) in zip(words, grouping, strict=True) if sample.answer in labels)
    return replace(sample, labels=tuple(words), answer=answer)


def _with_none(sample: Sample, rng: random.Random) -> Sample | None:
    """Return the sample with a label for what is not offered, which is the truth every second time."""
    if len(sample.labels) < 3:
        return None
    words = _words(sample, rng)
    if rng.random() < 0.5:
        return replace(sample, labels=(*(words[label] for label in sample.labels), NONE), answer=words[sample.answer])
    return replace(
        sample, labels=(*(words[label] for label in sample.labels if label != sample.answer), NONE), answer=NONE
    )


def _words(sample: Sample, rng: random.Random) -> dict[str, str]:
    """Return a spelling for each label, its own among them; no two labels get the same."""
    spellings = SPELLINGS.get(frozenset(sample.labels), {})
    words = {label: rng.choice((label, *spellings.get(label, ()))) for label in sample.labels}
    return words if len(set(words.values())) == len(words) else {label: label for label in sample.labels}
