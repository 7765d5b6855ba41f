"""Text, grams: texts become hashed n-gram counts.

In: text columns. Out: a scipy CSR matrix (n, 2^17): words in the first half (1- and 2-grams),
characters in the second (2- to 5-grams, which carry languages that don't put spaces between words).
Nothing is learned here, so a subscriber gets the same features from the same text; what they weigh
is the expert's. Hash: FNV-1a over code points, finished by murmur3's mixer; the same in
every process and on every machine.

Marks stand beside the plain words, in the same half: every word with the name of its column, and
words that are not all lower case as they were written. They weigh twice (huffpost .664 -> .672).
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate
from zlib import crc32

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

BITS = (
    16  # 2^16 buckets each for words and characters; 2^15 loses .009 on huffpost, 2^18 gains .001
)
BUCKETS = 2 << BITS
CHARACTER_GRAMS = (2, 5)
MAX_CHARACTERS = 8192  # of an event's column; what follows is not looked at
STOP_WORD_LISTS = ("keep", "english")

_MARK_COUNT = np.float32(np.e)  # a mark counts as e words, so its weight is 1 + log e = 2
_CASED = np.uint32(0x9747B28C)  # seed of words as they were written
_FNV_OFFSET = np.uint32(2166136261)
_FNV_PRIME = np.uint32(16777619)
_SPACE = np.uint32(32)
_BLANK, _OTHER, _WORD, _CAPITAL = 0, 1, 2, 3  # kinds of a code point


@cache
def stop_word_list(name: str) -> frozenset[str]:
    """The words that the list called `name`, one of STOP_WORD_LISTS, leaves out.

    >>> len(stop_word_list("keep")), "the" in stop_word_list("english")
    (0, True)
    """
    if name == "keep":
        return frozenset()
    # only here: it takes as long to import as all the rest, and few ask for it
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def tokens(text: str) -> list[str]:
    """Words of a text, case-folded, composed (NFKC): what is hashed, for people.

    Combining marks stay inside their word, which regular expressions' word class would cut.

    >>> tokens("The Stra\u00dfe's \u21161 cafe\u0301")
    ['the', 'strasse', 's', 'no1', 'caf\u00e9']
    """
    _, folded = _normalised(text)
    kinds = _kinds()
    spaced = (c if kinds[min(ord(c), len(kinds) - 1)] >= _WORD else " " for c in folded)
    return "".join(spaced).split()


def hashed_grams(
    columns: Mapping[str, Sequence[str | None]], *, stop_words: frozenset[str] = frozenset()
) -> csr_array:
    """(n, BUCKETS) float32 counts of n events' texts; a mark counts e. Missing texts add nothing.

    `columns` has one text or None for each of the n events. `stop_words` (case-folded) are left
    out of words and marks, never out of characters. A row follows from its own texts alone,
    whatever the order of columns and whichever other events are there.

    >>> grams = hashed_grams({"title": ("Hello world", None)})
    >>> grams.shape, np.diff(grams.indptr).tolist()  # 3 words, 3 marks, 42 of characters
    ((2, 131072), [48, 0])
    """
    n = max((len(column) for column in columns.values()), default=0)
    texts: list[str] = []  # as written, then folded, of each segment
    segments: list[tuple[int, int]] = []  # event, seed of its column
    seeds = sorted((crc32(name.encode("utf-8", "surrogatepass")), name) for name in columns)
    for event in range(n):
        for seed, name in seeds:
            if text := columns[name][event]:
                texts.extend(_normalised(text))
                segments.append((event, seed))
    indptr, indices, counts = _count(
        _code_points("".join(texts)),
        np.array([0, *accumulate(map(len, texts))], np.int64),
        np.array(segments, np.int64).reshape(-1, 2),
        n,
        _kinds(),
        np.sort(np.fromiter(_word_states(stop_words), np.uint32)),
    )
    return csr_array((counts, indices, indptr), shape=(n, BUCKETS))


def below(first: csr_array, then: csr_array) -> csr_array:
    """The rows of one, and then those of another."""
    indptr = np.concatenate([first.indptr, first.indptr[-1] + then.indptr[1:]])
    indices = np.concatenate([first.indices, then.indices])
    counts = np.concatenate([first.data, then.data])
    return csr_array((counts, indices, indptr), shape=(len(indptr) - 1, BUCKETS))


def _normalised(text: str) -> tuple[str, str]:
    """The text as written and case-folded, composed, cut at MAX_CHARACTERS."""
    text = text[:MAX_CHARACTERS]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)[:MAX_CHARACTERS]
    return text, text.casefold()


def _code_points(text: str) -> NDArray[np.uint32]:
    # a lone surrogate is no character, but may come out of JSON
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _word_states(words: frozenset[str]) -> Iterator[int]:
    for word in words:
        state = int(_FNV_OFFSET)
        for code_point in map(ord, word):
            state = (state ^ code_point) * int(_FNV_PRIME) & 0xFFFFFFFF
        yield state


@cache
def _kinds() -> NDArray[np.uint8]:
    """(0x20001,) kind of each code point; the last stands for all above, which are ideographs."""
    kinds = np.full(0x20001, _WORD, np.uint8)
    for code_point in range(0x20000):
        character = chr(code_point)
        if character.isspace():
            kinds[code_point] = _BLANK
        elif character != character.lower():
            kinds[code_point] = _CAPITAL
        elif not (character.isalnum() or unicodedata.category(character)[0] == "M"):
            kinds[code_point] = _OTHER
    return kinds


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _count(
    codes: NDArray[np.uint32],
    stops: NDArray[np.int64],
    segments: NDArray[np.int64],
    n: int,
    kinds: NDArray[np.uint8],
    stop_words: NDArray[np.uint32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """CSR arrays; a row's columns come as found, unsorted. Segments come sorted by event."""
    count = np.zeros(BUCKETS, np.float32)
    touched = np.empty(BUCKETS, np.int32)
    # a code point starts at most four character grams, and ends at most four words and marks
    indices = np.empty(4 * len(codes) + 8, np.int32)
    counts = np.empty(4 * len(codes) + 8, np.float32)
    indptr = np.zeros(n + 1, np.int32)  # as indices, or SciPy widens both
    segment = 0
    filled = 0
    for event in range(n):
        found = 0
        while segment < len(segments) and segments[segment, 0] == event:
            seed = np.uint32(segments[segment, 1])
            written = codes[stops[2 * segment] : stops[2 * segment + 1]]
            folded = codes[stops[2 * segment + 1] : stops[2 * segment + 2]]
            found = _words(folded, seed, kinds, stop_words, count, touched, found)
            found = _cased_words(written, kinds, count, touched, found)
            found = _characters(folded, kinds, count, touched, found)
            segment += 1
        for k in range(found):
            bucket = touched[k]
            indices[filled + k] = bucket
            counts[filled + k] = count[bucket]
            count[bucket] = 0.0
        filled += found
        indptr[event + 1] = filled
    return indptr, indices[:filled].copy(), counts[:filled].copy()


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _words(
    text: NDArray[np.uint32],
    seed: np.uint32,
    kinds: NDArray[np.uint8],
    stop_words: NDArray[np.uint32],
    count: NDArray[np.float32],
    touched: NDArray[np.int32],
    found: int,
) -> int:
    """Each word, alone, with its column's seed, and with the word before it."""
    before = np.uint32(0)
    first = True
    inside = False
    state = _FNV_OFFSET
    for k in range(len(text) + 1):
        if k < len(text) and _kind(text[k], kinds) >= _WORD:
            state = np.uint32((state ^ text[k]) * _FNV_PRIME)
            inside = True
        elif inside:
            at = np.searchsorted(stop_words, state)
            if at == len(stop_words) or stop_words[at] != state:
                found = _add(_bucket(state), np.float32(1.0), count, touched, found)
                found = _add(_bucket(state ^ seed), _MARK_COUNT, count, touched, found)
                if not first:
                    pair = np.uint32(before * np.uint32(0x9E3779B1)) ^ state
                    found = _add(_bucket(pair), np.float32(1.0), count, touched, found)
                before = state
                first = False
            state = _FNV_OFFSET
            inside = False
    return found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _cased_words(
    text: NDArray[np.uint32],
    kinds: NDArray[np.uint8],
    count: NDArray[np.float32],
    touched: NDArray[np.int32],
    found: int,
) -> int:
    """Words with a capital anywhere, as they were written."""
    capital = False
    state = _CASED
    for k in range(len(text) + 1):
        kind = _kind(text[k], kinds) if k < len(text) else _BLANK
        if kind >= _WORD:
            state = np.uint32((state ^ text[k]) * _FNV_PRIME)
            capital = capital or kind == _CAPITAL
        else:
            if capital:
                found = _add(_bucket(state), _MARK_COUNT, count, touched, found)
            capital = False
            state = _CASED
    return found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _characters(
    text: NDArray[np.uint32],
    kinds: NDArray[np.uint8],
    count: NDArray[np.float32],
    touched: NDArray[np.int32],
    found: int,
) -> int:
    """Character grams over word borders; blanks of any length and kind are one space, also at
    both ends."""
    shortest, longest = CHARACTER_GRAMS
    line = np.empty(len(text) + 2, np.uint32)
    line[0] = _SPACE
    n = 1
    for k in range(len(text) + 1):
        code_point = text[k] if k < len(text) else _SPACE
        if _kind(code_point, kinds) == _BLANK:
            code_point = _SPACE
        if code_point != _SPACE or line[n - 1] != _SPACE:
            line[n] = code_point
            n += 1
    for k in range(n):
        state = _FNV_OFFSET
        for length in range(1, min(longest, n - k) + 1):
            state = np.uint32((state ^ line[k + length - 1]) * _FNV_PRIME)
            if length >= shortest:
                bucket = (1 << BITS) + _bucket(np.uint32(state + np.uint32(length)))
                found = _add(bucket, np.float32(1.0), count, touched, found)
    return found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _kind(code_point: np.uint32, kinds: NDArray[np.uint8]) -> int:
    kind: int = kinds[min(int(code_point), len(kinds) - 1)]
    return kind


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _bucket(state: np.uint32) -> int:
    """The upper bits of murmur3's fmix32 (Appleby 2011)."""
    state ^= state >> np.uint32(16)
    state = np.uint32(state * np.uint32(0x85EBCA6B))
    state ^= state >> np.uint32(13)
    state = np.uint32(state * np.uint32(0xC2B2AE35))
    state ^= state >> np.uint32(16)
    return int(state >> np.uint32(32 - BITS))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add(
    bucket: int,
    amount: np.float32,
    count: NDArray[np.float32],
    touched: NDArray[np.int32],
    found: int,
) -> int:
    if count[bucket] == 0.0:
        touched[found] = bucket
        found += 1
    count[bucket] += amount
    return found
