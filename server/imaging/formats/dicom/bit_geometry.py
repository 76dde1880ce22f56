"""Interpret the bits of stored samples: high bit, stored bits, sign (PS3.5 8.1.1).

Where the samples contradict the header, another interpretation that has clearly fewer jumps between neighbours is
chosen, and a step tells of it. Samples in which overlays lie, `overlaid`, are as the header says.
"""

from dataclasses import dataclass

import numpy as np

from medmoe.server.schemas.images import RenderingStep

_CLEARLY = 0.95
"""Share of the jumps that the header's own interpretation has."""
_USUAL = 4
"""Mean differences between neighbours that one may be to be no jump."""
_SMOOTH = 0.25
"""Share of the jumps that must be none in the other interpretation."""
_NEAR = 1 / 32
"""Share of the range of values beside an extreme one, which is common if it is more than half of what lies there."""
_ROWS = 512
"""Rows that are compared: enough to tell a wrapped image from a smooth one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredValues:
    """Stored values of one frame as they are meant."""

    values: np.ndarray
    """[rows, columns], or [rows, columns, 3] in RGB or YCbCr."""
    bits: int
    signed: bool
    steps: tuple[RenderingStep, ...] = ()
    ybr: bool = False
    """Whether colours are YCbCr still."""


def from_cells(cells: np.ndarray, *, bits: int, shift: int, signed: bool, overlaid: bool) -> StoredValues:
    """Return the values in unsigned `cells` [rows, columns], of which `bits` from bit `shift` on are stored.

    Colours are cells [rows, columns, 3].
    """
    if shift := shift if overlaid else _true_shift(cells, bits, shift):
        cells = cells >> shift
    used = _held_bits(cells)
    if used <= bits:
        return StoredValues(values=_extended(cells, bits, signed), bits=bits, signed=signed)
    whole = 8 * cells.dtype.itemsize
    masked = _extended(cells & cells.dtype.type(2**bits - 1), bits, signed)
    full = _extended(cells, whole, signed)
    if shift or (signed and np.array_equal(masked, full)):
        return StoredValues(values=masked, bits=bits, signed=signed)
    values, held = (full, used) if not overlaid and _is_smoother(full, masked) else (masked, bits)
    return StoredValues(values=values, bits=held, signed=signed, steps=("unused_bits",))


def from_stream(
    samples: np.ndarray, *, precision: int, bits: int, shift: int, signed: bool, overlaid: bool
) -> StoredValues:
    """Return the values in `samples` [rows, columns] of a code stream of `precision` bits.

    `bits`, `shift` and `signed` are the DICOM header's; the sign of `samples` is the code stream's.
    """
    if overlaid and precision > bits:
        cells = samples.view(samples.dtype.str.replace("i", "u")) >> shift & (2**bits - 1)
        return StoredValues(values=_extended(cells, bits, signed), bits=bits, signed=signed, steps=("unused_bits",))
    # Some encoders move the values to the lowest bits.
    if precision > bits and (shift := _true_shift(samples, bits, shift)):
        samples, precision = samples >> shift, precision - shift
    if samples.dtype.kind == "i":
        if signed or samples.min() >= 0:
            return StoredValues(values=samples, bits=max(bits, precision), signed=signed)
        cells = samples.view(samples.dtype.str.replace("i", "u"))
        if precision < 8 * samples.dtype.itemsize:
            cells = cells & cells.dtype.type(2**precision - 1)
        values, signed = (cells, False) if _is_smoother(cells, samples) else (samples, True)
        return StoredValues(values=values, bits=precision, signed=signed, steps=("sign_inferred",))
    used = _held_bits(samples)
    if not signed:
        if used <= bits:
            return StoredValues(values=samples, bits=bits, signed=False)
        masked = samples & samples.dtype.type(2**bits - 1)
        values, held = (samples, precision) if _is_smoother(samples, masked) else (masked, bits)
        return StoredValues(values=values, bits=held, signed=False, steps=("unused_bits",))
    # Two's complement in an unsigned stream: the sign is the highest bit of the header's, or of the stream's.
    ends = dict.fromkeys([bits, precision] if used <= bits else [precision, bits])
    found = [
        StoredValues(
            values=_extended(samples & samples.dtype.type(2**end - 1), end, True),
            bits=end,
            signed=True,
            steps=() if end == bits else ("unused_bits",),
        )
        for end in ends
    ]
    found.append(StoredValues(values=samples, bits=precision, signed=False, steps=("sign_inferred",)))
    meant, *others = found
    other = min(others, key=lambda each: _jumps(each.values, meant.values).sum())
    return other if _is_smoother(other.values, meant.values) else meant


def with_high_words_first(cells: np.ndarray, *, signed: bool) -> np.ndarray:
    """Return 32-bit cells from big-endian words: some writers store a cell's low word first, others its high word."""
    swapped: np.ndarray = cells << 16 | cells >> 16
    one, other = (_extended(each, 32, signed) for each in (swapped, cells))
    return swapped if _are_clearly_fewer(_jumps(one, other), _jumps(other, other)) else cells


def _true_shift(cells: np.ndarray, bits: int, shift: int) -> int:
    """Return the lowest bit stored: 0 where values at the announced one would lose their lowest bits."""
    return 0 if shift and int(cells.max()) < 2**bits and (cells & (2**shift - 1)).any() else shift


def _held_bits(cells: np.ndarray) -> int:
    return max(int(cells.max()).bit_length(), 1)


def _extended(cells: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Return unsigned `cells` without bits above `bits`, as two's complement of as many bits where `signed`."""
    if not signed:
        return cells
    spare = 8 * cells.dtype.itemsize - bits
    values = cells.view(cells.dtype.str.replace("u", "i"))
    return values << spare >> spare if spare else values


def _is_smoother(values: np.ndarray, meant: np.ndarray) -> bool:
    """Return whether the values have clearly fewer jumps than `meant`, the same ones as the header says.

    What they have in place of a jump must be as smooth as the rest: a rim that is merely lower says nothing.
    """
    jumps, meant_jumps = _jumps(values, meant), _jumps(meant, meant)
    if not _are_clearly_fewer(jumps, meant_jumps):
        return False
    rest = jumps[(jumps == meant_jumps) & (jumps > 0)]
    return bool(rest.size) and float(np.quantile(jumps[jumps < meant_jumps], _SMOOTH)) <= _USUAL * float(rest.mean())


def _are_clearly_fewer(jumps: np.ndarray, meant_jumps: np.ndarray) -> bool:
    return float(jumps.sum()) < _CLEARLY * float(meant_jumps.sum())


def _jumps(values: np.ndarray, meant: np.ndarray) -> np.ndarray:
    """Return the differences between horizontal neighbours.

    Those at the smallest or largest value are left out where it is common, as in a background, in text or where values
    are cut off: its jumps may be as large as a wrong interpretation's.
    """
    step = max(len(values) // _ROWS, 1)
    rows, meant = (some[::step].astype(np.float64) for some in (values, meant))
    kept = np.ones_like(rows, bool)
    for extreme in (meant.min(), meant.max()):
        is_extreme = meant == extreme
        is_near = np.abs(meant - extreme) < np.ptp(meant) * _NEAR
        has_runs = (is_extreme[:, 1:] & is_extreme[:, :-1]).any()
        if has_runs and 2 * is_extreme.sum() > is_near.sum():
            kept &= ~is_extreme
    kept = kept[:, 1:] & kept[:, :-1]
    return np.asarray(np.abs(np.diff(rows, axis=1))[kept])
