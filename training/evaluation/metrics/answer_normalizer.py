"""Normalize words as upstream's evaluator does, quirks included, because published numbers went through it.

Source: Med-MoE and LLaVA-Med, `eval_metrics/glossary.py: normalize_word`, a mutated copy of the VQA challenge's.
"""

import re

_SIGNS = ';/[]"{}()=+\\_-><@`,?!'
# Upstream's look-behind is malformed and always holds; what is left of it is "a period not before a digit".
_PERIOD = re.compile(r"\.(?!\d)")
# Upstream passes re.UNICODE (32) where re.sub takes the number of replacements.
_MAX_PERIODS = 32
_DIGIT_COMMA = re.compile(r"\d,\d")
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0"} | {word: str(value) for value, word in enumerate(_NUMBER_WORDS)}
_ARTICLES = frozenset({"a", "an", "the"})
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _misspellings() -> dict[str, str]:
    """Return each contraction with exactly one of its apostrophes left out, to the contraction."""
    table = {
        word[:place] + word[place + 1 :]: word
        for word in _CONTRACTIONS.split()
        for place, sign in enumerate(word)
        if sign == "'"
    }
    # The VQA challenge's one entry that goes the other way.
    return table | {"somebody'd": "somebodyd"}


_FULL_SPELLING = _misspellings()


def normalize_answer(text: str) -> str:
    """Return `text` in lower case, without most punctuation and articles, numbers up to ten as digits.

    Quirks that are kept: a sign is deleted if it stands beside a space anywhere in the text or if the text holds
    digit-comma-digit anywhere, and becomes a space otherwise; at most 32 periods go; colons and apostrophes stay.

    >>> normalize_answer("The left-lung, upper lobe.")
    'left lung upper lobe'
    >>> normalize_answer("left-lung - upper")
    'leftlung upper'
    >>> normalize_answer("1,000-2,000")
    '10002000'
    >>> normalize_answer("None, dont know: 2.5 cm")
    "0 don't know: 2.5 cm"
    """
    digit_comma = _DIGIT_COMMA.search(text) is not None
    stripped = text
    for sign in _SIGNS:
        beside_space = f"{sign} " in text or f" {sign}" in text
        stripped = stripped.replace(sign, "" if beside_space or digit_comma else " ")
    stripped = _PERIOD.sub("", stripped, count=_MAX_PERIODS)
    words = [_NUMBERS.get(word, word) for word in stripped.lower().split()]
    return " ".join(_FULL_SPELLING.get(word, word) for word in words if word not in _ARTICLES)
