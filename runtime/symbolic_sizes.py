"""Symbolic sizes of tensors: polynomials over the letters of the legend of shapes in docs/architecture.md.

`4*B*S + 1` is stored as the coefficients of its products of letters, {"BS": 4, "": 1}; a size without letters
is an int. Every letter stands for a whole number of at least 1, so the coefficients bound how fast a size
grows with the letters.
"""

from collections.abc import Iterable, Mapping
from typing import Union

Size = Union[int, "Polynomial"]


class Polynomial:
    """A polynomial with integer coefficients and at least one letter. Immutable."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[str, int]) -> None:
        self.terms = terms  # by sorted letters, where a square has its letter twice; no coefficient is 0

    def __add__(self, other: Size) -> Size:
        terms = dict(self.terms)
        for letters, factor in terms_of(other).items():
            terms[letters] = terms.get(letters, 0) + factor
        return _simplified(terms)

    def __mul__(self, other: Size) -> Size:
        terms: dict[str, int] = {}
        for a, x in self.terms.items():
            for b, y in terms_of(other).items():
                letters = "".join(sorted(a + b))
                terms[letters] = terms.get(letters, 0) + x * y
        return _simplified(terms)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: Size) -> Size:
        return self + -1 * other

    def __rsub__(self, other: Size) -> Size:
        return -1 * self + other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __repr__(self) -> str:
        text = ""
        for letters, factor in sorted(self.terms.items(), key=lambda term: term[1] < 0):
            sign = " - " if factor < 0 else " + "
            number = [str(abs(factor))] if abs(factor) != 1 or not letters else []
            text += (sign if text or factor < 0 else "") + "*".join([*number, *letters])
        return text.strip()


def letter(name: str) -> Polynomial:
    return Polynomial({name: 1})


def terms_of(size: Size) -> Mapping[str, int]:
    """The coefficients of `size` by product of letters."""
    if isinstance(size, Polynomial):
        return size.terms
    return {"": size} if size else {}


def _simplified(terms: dict[str, int]) -> Size:
    kept = {letters: factor for letters, factor in terms.items() if factor}
    if not kept or kept.keys() == {""}:
        return kept.get("", 0)
    return Polynomial(kept)


def is_at_least(size: Size, minimum: int) -> bool:
    """Whether `size` is known to be at least `minimum` whatever the letters. For example, S - 1 is at least
    0."""
    if isinstance(size, int):
        return size >= minimum
    return all(factor > 0 for letters, factor in size.terms.items() if letters) and (
        sum(size.terms.values()) >= minimum
    )


def product(sizes: Iterable[Size]) -> Size:
    """The number of elements of a shape."""
    total: Size = 1
    for size in sizes:
        total = total * size
    return total


def divide(size: Size, by: Size) -> Size | None:
    """`size / by` if `by` is a single product and divides `size` exactly, else None. 6BK by 2B is 3K."""
    if len(divisor := terms_of(by)) != 1:
        return None
    [(letters, factor)] = divisor.items()
    terms = {}
    for own, count in terms_of(size).items():
        left = own
        for x in letters:
            if x not in left:
                return None
            left = left.replace(x, "", 1)
        if count % factor:
            return None
        terms[left] = count // factor
    return _simplified(terms)


def upper_bound(size: Size) -> dict[str, int]:
    """The coefficients of an upper bound of `size` without negative terms."""
    return {letters: factor for letters, factor in terms_of(size).items() if factor > 0}
