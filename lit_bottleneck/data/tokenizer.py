"""Texts as rows of tokens: words, vocabulary, padding."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

TOKENIZER_VERSION = 1  # part of the cache's key: raise it when the same texts would give other tokens
PADDING = 0
UNKNOWN = 1
FIRST_WORD = 2

_TYPOGRAPHIC_APOSTROPHE = "\u2019"
_BREAKS = re.compile(r"<br\s*/?>")
_WORDS = re.compile(r"[^\W_]+(?:'[^\W_]+)*")  # letters and digits of any script, apostrophes within


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without HTML breaks and punctuation.

    An apostrophe within a word is kept (a typographic one as a plain one), around a word it is dropped. All other
    characters except letters and digits separate words.

    >>> words_of("It's 'GREAT'!<br /><br />A well-made film.")
    ["it's", 'great', 'a', 'well', 'made', 'film']
    """
    plain = unicodedata.normalize("NFC", text.lower()).replace(_TYPOGRAPHIC_APOSTROPHE, "'")
    return _WORDS.findall(_BREAKS.sub(" ", plain))


def encode_texts(
    training: Iterable[str], test: Iterable[str], vocabulary_size: int, max_length: int
) -> tuple[NDArray[np.signedinteger], NDArray[np.signedinteger]]:
    """Return the tokens of the training texts and of the test texts; each text is read once.

    Words are numbered from 2 by falling frequency in the whole training texts, equally frequent ones in alphabetical
    order; 1 is every other word. The last ``max_length`` words of each text are kept; shorter texts have 0 in front.

    >>> encode_texts(["a good film", "a bad, bad film"], ["a new film"], vocabulary_size=5, max_length=4)[0].tolist()
    [[0, 2, 1, 4], [2, 3, 3, 4]]

    Args:
        training: n texts.
        test: m texts.
        vocabulary_size: all tokens are below it.
        max_length: L, tokens per text.

    Returns:
        int16 if the vocabulary is small enough, else int32: ``(N, L)`` and ``(M, L)``.
    """
    numbering: defaultdict[str, int] = defaultdict(count().__next__)  # from 0, in the order of first use
    numbered = [np.fromiter(map(numbering.__getitem__, words_of(text)), np.int32) for text in training]
    token_of = _rank(numbering, numbered)
    token_of[token_of >= vocabulary_size] = UNKNOWN
    vocabulary = {word: int(token_of[number]) for word, number in numbering.items() if token_of[number] != UNKNOWN}
    dtype = np.int16 if vocabulary_size - 1 <= np.iinfo(np.int16).max else np.int32

    training_rows = [token_of[numbers[-max_length:]] for numbers in numbered]
    test_rows = [[vocabulary.get(word, UNKNOWN) for word in words_of(text)[-max_length:]] for text in test]
    return _padded(training_rows, max_length, dtype), _padded(test_rows, max_length, dtype)


def _rank(numbering: dict[str, int], texts: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return the token of each numbered word ``(W,)`` in a vocabulary of all words."""
    counts = np.bincount(np.concatenate([np.empty(0, np.int32), *texts]), minlength=len(numbering)).tolist()
    ranked = sorted(numbering, key=lambda word: (-counts[numbering[word]], word))
    token_of = np.empty(len(numbering), np.int32)
    token_of[[numbering[word] for word in ranked]] = np.arange(FIRST_WORD, FIRST_WORD + len(ranked))
    return token_of


def _padded(
    rows: Sequence[NDArray[np.int32] | list[int]], length: int, dtype: type[np.signedinteger]
) -> NDArray[np.signedinteger]:
    """Return rows of at most ``length`` tokens as ``(len(rows), length)``, with padding in front."""
    matrix = np.full((len(rows), length), PADDING, dtype)
    for position, row in enumerate(rows):
        matrix[position, length - len(row) :] = row
    return matrix
