"""Make values of DICOM's value representations (PS3.5 section 6.2) of texts that may break their rules."""

import re
from datetime import date, timedelta, timezone

_DATE = re.compile(r"(\d{4})(\.?)(\d\d)\2(\d\d)", re.ASCII)
_TIME = re.compile(r"([01]\d|2[0-3])(?:(:?)([0-5]\d)(?:\2([0-5]\d)(\.\d{1,6})?)?)?", re.ASCII)
"""Dots in a date and colons in a time are ACR-NEMA's, which DICOM reads."""
_AGE = re.compile(r"\d{3}[DWMY]", re.ASCII)
_SEX = ("M", "F", "O")
_OFFSET = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)", re.ASCII)
_LONG_STRING = 64
"""Characters of a long string (LO)."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x09\x0b\x0e-\x1f\x7f-\x9f]")
"""Control characters but those that end a line or a page."""


def date_value(text: str) -> str:
    """Return a date (DA), empty where `text` is none."""
    found = _DATE.fullmatch(text)
    if found is None:
        return ""
    year, _, month, day = found.groups()
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return ""
    return year + month + day


def time_value(text: str) -> str:
    """Return a time (TM), empty where `text` is none."""
    found = _TIME.fullmatch(text)
    return "" if found is None else text.replace(":", "")


def age_value(text: str) -> str:
    """Return an age (AS), empty where `text` is none."""
    return text if _AGE.fullmatch(text) else ""


def sex_value(text: str) -> str:
    """Return M, F or O, empty where `text` is none of them."""
    return text.upper() if text.upper() in _SEX else ""


def utc_offset(text: str) -> timezone | None:
    """Return the time zone of an offset such as +0100, None where `text` is none."""
    found = _OFFSET.fullmatch(text)
    if found is None or text == "-0000":
        return None
    sign, hours, minutes = found.groups()
    return timezone((-1 if sign == "-" else 1) * timedelta(hours=int(hours), minutes=int(minutes)))


def first_value(text: str) -> str:
    """Return the first of values that backslashes divide, where there may be one alone."""
    return text.partition("\\")[0].strip()


def long_string(text: str) -> str:
    """Return one long string (LO): a backslash would begin another value."""
    return _CONTROL.sub(" ", text).replace("\\", " ")[:_LONG_STRING].strip()


def text_value(text: str) -> str:
    """Return a text (UT), with spaces for the control characters that it cannot hold."""
    return _CONTROL_IN_TEXT.sub(" ", text).strip()
