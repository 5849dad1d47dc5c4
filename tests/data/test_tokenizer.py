import numpy as np
import pytest

from lit_bottleneck.data.tokenizer import encode_texts, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Great FILM", ["great", "film"]),
        ("One.<br /><br />Two<br>three<br/>four", ["one", "two", "three", "four"]),
        ("the brakes", ["the", "brakes"]),
        ("don't 'quote' dogs' rock'n'roll", ["don't", "quote", "dogs", "rock'n'roll"]),
        ("it\u2019s \u2018so\u2019 \u201cold\u201d\u2026 really\u2014no", ["it's", "so", "old", "really", "no"]),
        ("well-made, 10/10! snake_case", ["well", "made", "10", "10", "snake", "case"]),
        ("Ame\u0301lie NAI\u0308VE \u00c9T\u00c9", ["am\u00e9lie", "na\u00efve", "\u00e9t\u00e9"]),
        (
            "\u0424\u0438\u043b\u044c\u043c \u7535\u5f71\uff0c\U0001f600",
            ["\u0444\u0438\u043b\u044c\u043c", "\u7535\u5f71"],
        ),
        (" \t\n\u00a0...<br />", []),
    ],
)
def test_words(text, words):
    assert words_of(text) == words


def test_the_vocabulary_is_ordered_by_falling_frequency_then_alphabetically():
    # pear 3, then apple and fig 2 each, then date 1; only three words have room
    training, test = encode_texts(["pear fig apple pear", "fig apple pear date"], ["date kiwi fig pear apple"], 5, 6)
    assert training.tolist() == [[0, 0, 2, 4, 3, 2], [0, 0, 4, 3, 2, 1]]
    assert test.tolist() == [[0, 1, 1, 4, 2, 3]]


def test_the_vocabulary_counts_truncated_words_but_not_test_words():
    training, test = encode_texts(["a a a b b c"], ["c c c c b"], vocabulary_size=4, max_length=3)
    assert training.tolist() == [[3, 3, 1]]
    assert test.tolist() == [[1, 1, 3]]


def test_the_last_tokens_are_kept_and_padding_is_in_front():
    training, test = encode_texts(["a a a a b b b c c d", "d c", ""], [], vocabulary_size=10, max_length=3)
    assert training.tolist() == [[4, 4, 5], [0, 5, 4], [0, 0, 0]]
    assert test.shape == (0, 3)


@pytest.mark.parametrize(("vocabulary_size", "dtype"), [(2**15, np.int16), (2**15 + 1, np.int32)])
def test_tokens_have_the_narrowest_type_for_the_vocabulary(vocabulary_size, dtype):
    text = " ".join(f"w{number}" for number in range(2**15))
    training, _ = encode_texts([text], [], vocabulary_size, max_length=2**15)
    assert training.dtype == dtype
    assert training.max() == vocabulary_size - 1
    assert training.min() == 1
