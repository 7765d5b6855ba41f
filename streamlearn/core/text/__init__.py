"""Stage 1, text: texts become hashed n-grams, and a sparse softmax learns them in bounded memory.

In: text columns and class codes. Out: log-probabilities (n, C), and named arrays for the model.
Unlike preprocess, which brings numbers to one scale for all experts, this stage is an expert of
its own: grams counts, expert learns, weights is what a reader predicts with, replay remembers.
"""

from streamlearn.core.text.columns import texts_of
from streamlearn.core.text.expert import TextExpert, TextSettings
from streamlearn.core.text.grams import (
    BUCKETS,
    STOP_WORD_LISTS,
    hashed_grams,
    stop_word_list,
    tokens,
)
from streamlearn.core.text.weights import Texts, TextWeights, csr_parts

__all__ = [
    "BUCKETS",
    "STOP_WORD_LISTS",
    "TextExpert",
    "TextSettings",
    "TextWeights",
    "Texts",
    "csr_parts",
    "hashed_grams",
    "stop_word_list",
    "texts_of",
    "tokens",
]
