"""The text expert against slow obvious versions of itself, and on the streams that are hard."""

import unicodedata
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamlearn.core.text import (
    BUCKETS,
    TextExpert,
    TextSettings,
    TextWeights,
    hashed_grams,
    stop_word_list,
    tokens,
)
from streamlearn.core.text.expert import FIRST_ROWS
from streamlearn.core.text.table import ADMIT_AFTER
from streamlearn.core.text.weights import PRIOR_OFF, STEP
from streamlearn.errors import ConfigError, StateError

MASK = 0xFFFFFFFF


def slow_bucket(state: int) -> int:
    state ^= state >> 16
    state = state * 0x85EBCA6B & MASK
    state ^= state >> 13
    state = state * 0xC2B2AE35 & MASK
    state ^= state >> 16
    return state >> 16


def slow_hash(text: str, seed: int = 2166136261) -> int:
    for character in text:
        seed = (seed ^ ord(character)) * 16777619 & MASK
    return seed


def slow_grams(text: str, column: str) -> dict[int, float]:
    """As the module's page says it, with Python's own strings."""
    from zlib import crc32

    written = unicodedata.normalize("NFKC", text) if not text.isascii() else text
    folded = written.casefold()

    def words_of(content: str) -> list[str]:
        kept = (c if c.isalnum() or c != c.lower() or is_mark(c) else " " for c in content)
        return "".join(kept).split(" ")

    def is_mark(c: str) -> bool:
        return unicodedata.category(c).startswith("M")

    counts: dict[int, float] = defaultdict(float)
    words = [w for w in words_of(folded) if w]
    for before, word in zip([None, *words], words, strict=False):
        counts[slow_bucket(slow_hash(word))] += 1.0
        counts[slow_bucket(slow_hash(word) ^ crc32(column.encode()))] += np.e
        if before is not None:
            counts[slow_bucket((slow_hash(before) * 0x9E3779B1 & MASK) ^ slow_hash(word))] += 1.0
    for word in words_of(written):
        if any(c != c.lower() for c in word):
            counts[slow_bucket(slow_hash(word, 0x9747B28C))] += np.e
    line = f" {' '.join(folded.split())} " if folded.split() else " "
    for start in range(len(line)):
        for length in range(2, 6):
            if start + length <= len(line):
                state = slow_hash(line[start : start + length]) + length & MASK
                counts[BUCKETS // 2 + slow_bucket(state)] += 1.0
    return dict(counts)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cs"]), max_size=40))
def test_hashed_grams_are_those_of_plain_python(text: str) -> None:
    grams = hashed_grams({"title": (text,)})
    found = dict(zip(grams.indices.tolist(), grams.data.tolist(), strict=True))
    expected = slow_grams(text, "title") if text else {}
    assert found.keys() == expected.keys()
    assert all(found[bucket] == pytest.approx(expected[bucket], rel=1e-6) for bucket in expected)


def test_words_are_folded_composed_and_keep_their_combining_marks() -> None:
    assert tokens("STRASSE straße") == ["strasse", "strasse"]
    assert tokens("cafe\u0301 café") == ["café", "café"]
    assert tokens("हिन्दी भाषा, ภาษาไทย!") == ["हिन्दी", "भाषा", "ภาษาไทย"]
    assert tokens("") == []


def test_a_row_follows_from_its_own_texts_alone() -> None:
    both = hashed_grams({"b": ("x y", "Öl"), "a": (None, "long text")})
    other = hashed_grams({"a": ("long text",), "b": ("Öl",)})
    np.testing.assert_array_equal(both[[1]].toarray(), other.toarray())
    one, other = hashed_grams({"a": ("x",)}), hashed_grams({"b": ("x",)})
    assert set(one.indices.tolist()) != set(other.indices.tolist())  # columns differ


def test_stop_words_leave_words_and_stay_in_characters() -> None:
    stop = hashed_grams({"a": ("the of",)}, stop_words=stop_word_list("english"))
    assert stop.indices.min() >= BUCKETS // 2
    assert stop.nnz > 0
    with pytest.raises(ConfigError, match="stop_words='french'"):
        TextSettings(stop_words="french")


def test_endless_and_broken_texts_do_no_harm() -> None:
    grams = hashed_grams({"a": ("x" * 1_000_000, "\ud800 lone", "ﷺ" * 20_000, "\x00", " ")})
    assert grams.shape == (5, BUCKETS)
    assert grams.data.min() >= 1.0


VOCABULARY = {  # two characters mean more than one, and no spaces
    "天气": ["今天下雨了", "明天有大雪", "气温下降了", "台风要来了", "天空很晴朗"],
    "足球": ["主队进球了", "比赛结束了", "球员受伤了", "联赛冠军赛", "守门员扑救"],
    "อาหาร": ["ข้าวผัดอร่อย", "แกงเผ็ดมาก", "ร้านอาหารใหม่", "ผลไม้สดหวาน", "ก๋วยเตี๋ยวเรือ"],
}


def sentences(n: int, seed: int) -> tuple[list[str], NDArray[np.int64]]:
    """Three topics; a sentence is two phrases of its topic, run together."""
    rng = np.random.default_rng(seed)
    topics = list(VOCABULARY.values())
    codes = rng.integers(len(topics), size=n)
    return ["".join(rng.choice(topics[code], 2)) for code in codes], codes


def accuracy(expert: TextExpert, texts: list[str], codes: NDArray[np.int64]) -> float:
    return float((expert.predict({"text": texts}).argmax(axis=1) == codes).mean())


def headlines(n: int, n_classes: int, seed: int) -> tuple[list[str], NDArray[np.int64]]:
    """Words of a class among words of all; four in ten tell."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(n_classes, size=n)
    texts = []
    for code in codes:
        own = rng.random(8) < 0.4
        ids = np.where(own, 30 * (code + 1) + rng.integers(30, size=8), rng.integers(30, size=8))
        texts.append(" ".join(f"w{i:04d}q" for i in ids))
    return texts, codes


def fed(expert: TextExpert, texts: list[str], codes: NDArray[np.int64], step: int = 32) -> None:
    for start in range(0, len(texts), step):
        expert.learn({"text": texts[start : start + step]}, codes[start : start + step])


def test_languages_without_spaces_are_told_apart_by_their_characters() -> None:
    expert = TextExpert(key=1)
    fed(expert, *sentences(200, seed=0))
    new = [a + b for group in VOCABULARY.values() for a in group for b in group]
    codes = np.repeat([0, 1, 2], 25)
    assert accuracy(expert, new, codes) == 1.0
    alone = [phrase[1:4] for group in VOCABULARY.values() for phrase in group]
    assert accuracy(expert, alone, np.repeat([0, 1, 2], 5)) >= 0.9  # no whole word among them


def test_classes_that_appear_over_time_are_learned_and_the_old_are_kept() -> None:
    expert = TextExpert(key=1)
    texts, codes = headlines(1200, 6, seed=1)
    for pair in range(3):
        now = np.flatnonzero(codes // 2 == pair)
        fed(expert, [texts[i] for i in now], codes[now])
        assert expert.n_classes == 2 * pair + 2
        if pair == 0:
            assert expert.predict({"text": ["w0031q"]}).shape == (1, 2)
    new, new_codes = headlines(300, 6, seed=2)
    assert accuracy(expert, new, new_codes) > 0.9
    for code in range(6):
        own = np.flatnonzero(new_codes == code)
        assert accuracy(expert, [new[i] for i in own], new_codes[own]) > 0.75


def test_class_skew_1_to_1000_does_not_hide_the_rare_class() -> None:
    texts, codes = headlines(4000, 2, seed=3)
    rare = np.flatnonzero(codes == 1)[:4]
    keep = np.sort(np.concatenate([np.flatnonzero(codes == 0), rare]))
    expert = TextExpert(key=1)
    fed(expert, [texts[i] for i in keep], codes[keep])
    new, new_codes = headlines(400, 2, seed=4)
    own = np.flatnonzero(new_codes == 1)
    assert accuracy(expert, [new[i] for i in own], new_codes[own]) > 0.3  # 4 examples of 30 words
    rest = np.flatnonzero(new_codes == 0)
    assert accuracy(expert, [new[i] for i in rest], new_codes[rest]) > 0.9


def test_label_noise_of_20_percent_costs_little() -> None:
    texts, codes = headlines(1500, 3, seed=5)
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(1500) < 0.2, rng.integers(3, size=1500), codes)
    expert = TextExpert(key=1)
    fed(expert, texts, noisy)
    assert accuracy(expert, *headlines(300, 3, seed=6)) > 0.8


def test_predictions_are_log_probabilities_and_say_nothing_without_text() -> None:
    expert = TextExpert(key=1)
    assert expert.predict({"text": ("a", "b")}).shape == (2, 0)
    fed(expert, *headlines(100, 3, seed=7))
    scores = expert.predict({"text": ("w0031q", None, ""), "other": (None, None, "")})
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(scores[1:], np.log(1 / 3), rtol=1e-6)
    assert scores[0].argmax() == 0
    assert expert.predict({}).shape == (0, 3)


def slow_scores(weights: TextWeights, text: str) -> NDArray[np.float64]:
    """As the module's page says it, in float64."""
    scores = np.zeros(weights.weights.shape[1])
    values: dict[int, float] = {}
    for bucket, count in slow_grams(text, "text").items():
        row = int(weights.slots[bucket])
        if row >= 0:
            idf = 1 + np.log(1 + weights.n_texts) - np.log(2) / 2 * weights.rarity[row]
            values[row] = values.get(row, 0.0) + (1 + np.log(count)) * idf
    if not values:
        return np.full(len(scores), -np.log(len(scores)))
    length = np.sqrt(sum(value**2 for value in values.values()))
    for row, value in values.items():
        scores += value / length * STEP * weights.weights[row]
    scores -= PRIOR_OFF * np.log((weights.prior + 0.5) / (weights.prior.sum() + 1))
    result: NDArray[np.float64] = scores - np.log(np.exp(scores).sum())
    return result


def test_predictions_equal_the_slow_sum() -> None:
    expert = TextExpert(key=1)
    fed(expert, *headlines(200, 4, seed=8))
    weights = expert.weights()
    for text in ("w0031q w0001q and New words", "w0061q w0095q", "天气"):
        scores = weights.predict({"text": (text,)})[0]
        np.testing.assert_allclose(scores, slow_scores(weights, text), atol=2e-5)


def test_learning_equals_plain_softmax_regression_on_dense_rows() -> None:
    """The first step has nothing to replay: one step of gradient a text, in sequence."""
    texts = ["red apple", "red apple", "green pear", "green pear", "red pear"]
    codes = np.array([0, 0, 1, 1, 2])
    expert = TextExpert(key=1, settings=TextSettings(rate=0.5))
    expert.learn({"text": texts}, codes)
    meta, arrays = expert.state()
    seen: Counter[int] = Counter()
    for text in texts:
        seen.update(slow_grams(text, "text").keys())
    row_of = {int(b): row for row, b in enumerate(arrays["buckets"]) if b >= 0}
    assert row_of.keys() == {b for b, n in seen.items() if n >= ADMIT_AFTER}
    dense = np.zeros((len(arrays["buckets"]), 3))
    for text, code in zip(texts, codes, strict=True):
        x = np.zeros(len(dense))
        for bucket, count in slow_grams(text, "text").items():
            if bucket in row_of:
                rarity = np.rint(2 * np.log2(1 + seen[bucket]))
                idf = 1 + np.log(1 + 5) - np.log(2) / 2 * rarity
                x[row_of[bucket]] = (1 + np.log(count)) * idf
        x /= np.linalg.norm(x)
        p = np.exp(x @ dense)
        dense -= 0.5 * np.outer(x, p / p.sum() - np.eye(3)[code])
    np.testing.assert_allclose(arrays["weights"], dense, atol=1e-5)
    assert meta["n_texts"] == 5


def test_what_is_served_is_within_a_step_and_right_on_average() -> None:
    expert = TextExpert(key=1)
    fed(expert, *headlines(600, 4, seed=9))
    exact = expert.state()[1]["weights"]
    served = STEP * expert.weights().weights.astype(np.float64)
    off = served - exact
    assert np.abs(off).max() < STEP * 1.001
    assert abs(off[exact != 0].mean()) < 0.05 * STEP
    assert (served[exact == 0] == 0).all()


def test_what_is_served_is_a_copy_and_says_the_same() -> None:
    expert = TextExpert(key=1)
    texts, codes = headlines(300, 3, seed=10)
    fed(expert, texts[:200], codes[:200])
    weights = expert.weights()
    before = expert.predict({"text": texts[200:]})
    np.testing.assert_array_equal(weights.predict({"text": texts[200:]}), before)
    fed(expert, texts[200:], codes[200:])
    np.testing.assert_array_equal(weights.predict({"text": texts[200:]}), before)
    again = TextWeights.of(weights.tensors(), stop_words="keep")
    np.testing.assert_array_equal(again.predict({"text": texts[200:]}), before)
    assert not any(tensor.flags.writeable for tensor in expert.tensors().values())


def test_an_update_carries_few_of_the_touched_rows() -> None:
    expert = TextExpert(key=1)
    texts, codes = headlines(1232, 4, seed=11)
    fed(expert, texts[:1200], codes[:1200])
    before, exact = expert.weights(), expert.state()[1]["weights"]
    fed(expert, texts[1200:], codes[1200:])
    after, moved = expert.weights(), expert.state()[1]["weights"]
    assert after.weights.shape == before.weights.shape
    changed = int((after.weights != before.weights).any(axis=1).sum())
    touched = int((moved != exact).any(axis=1).sum())
    assert 0 < changed < touched / 3


def test_memory_stays_bounded_and_the_useful_rows_stay() -> None:
    small = TextSettings(max_weights=FIRST_ROWS * 4)
    expert = TextExpert(key=1, settings=small)
    rng = np.random.default_rng(0)
    texts, codes = headlines(1500, 4, seed=12)
    noise = [f"{t} {' '.join(map(str, rng.integers(500, size=6)))}" for t in texts]
    fed(expert, noise, codes)
    assert expert.n_rows == FIRST_ROWS
    assert expert.nbytes < 1_000_000
    assert accuracy(expert, *headlines(300, 4, seed=13)) > 0.85
    expert.grow(400)  # more classes than the bound has room for: the least rows that there are
    assert expert.n_rows == FIRST_ROWS


def test_a_table_that_shrinks_for_more_classes_keeps_what_it_knows() -> None:
    settings_ = TextSettings(max_weights=6000)
    expert = TextExpert(key=1, settings=settings_)
    texts, codes = headlines(600, 2, seed=14)
    fed(expert, texts, codes)
    assert expert.n_rows > FIRST_ROWS
    expert.grow(5)
    assert expert.n_rows == 1200
    buckets = expert.state()[1]["buckets"]
    taken = np.flatnonzero(buckets >= 0)
    np.testing.assert_array_equal(expert.weights().slots[buckets[taken]], taken)
    assert (expert.weights().slots >= 0).sum() == len(taken)
    assert accuracy(expert, texts, codes) > 0.9


@settings(max_examples=12, deadline=None)
@given(cut=st.integers(0, 300), seed=st.integers(0, 3))
def test_going_on_from_its_state_is_the_same_to_the_bit(cut: int, seed: int) -> None:
    texts, codes = headlines(300, 4, seed=seed)
    small = TextSettings(max_weights=5000, replay_per_class=5)
    codes[::7] = -1
    whole, first = TextExpert(key=9, settings=small), TextExpert(key=9, settings=small)
    cut -= cut % 32  # learning goes step by step
    fed(whole, texts, codes)
    fed(first, texts[:cut], codes[:cut])
    meta, arrays = first.state()
    second = TextExpert.restore(meta, arrays, small)
    fed(second, texts[cut:], codes[cut:])
    for name, tensor in whole.weights().tensors().items():
        np.testing.assert_array_equal(second.weights().tensors()[name], tensor, err_msg=name)
    meta, arrays = whole.state()
    again, again_arrays = second.state()
    assert again == meta
    for name, array in arrays.items():
        np.testing.assert_array_equal(again_arrays[name], array, err_msg=name)


def test_columns_that_come_and_go_are_remembered_with_their_texts() -> None:
    expert = TextExpert(key=1)
    expert.learn({"a": ("one two", "three four")}, np.array([0, 1]))
    expert.learn({"b": ("fünf \ud800", None)}, np.array([0, 1]))
    expert.learn({"a": ("one",), "c": ("x",)}, np.array([1]))
    meta, arrays = expert.state()
    other = TextExpert.restore(meta, arrays)
    again = other.state()[1]
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_unlabelled_events_leave_no_trace() -> None:
    expert = TextExpert(key=1)
    expert.learn({"a": ("x", "y")}, np.array([-1, -1]))
    assert (expert.n_texts, expert.n_classes) == (0, 0)
    one, two = TextExpert(key=1), TextExpert(key=1)
    one.learn({"a": ("red", "green", "red")}, np.array([0, -1, 0]))
    two.learn({"a": ("red", "red")}, np.array([0, 0]))
    np.testing.assert_array_equal(one.state()[1]["weights"], two.state()[1]["weights"])


@pytest.mark.parametrize("name", ["buckets", "texts", "weights", "seen", "replay/kept", "prior"])
def test_a_state_that_lacks_something_is_refused(name: str) -> None:
    expert = TextExpert(key=1)
    fed(expert, *headlines(64, 2, seed=15))
    meta, arrays = expert.state()
    with pytest.raises(StateError, match=r"restore what state|corrupt"):
        TextExpert.restore(meta, {k: a for k, a in arrays.items() if k != name})
    with pytest.raises(StateError, match=r"restore what state|corrupt"):
        TextExpert.restore(meta, {**arrays, name: arrays[name][:-1]})


def test_grams_that_are_known_already_teach_the_same() -> None:
    rng = np.random.default_rng(12)
    words = [f"w{i} {'rain' if i % 2 else 'goal'} w{i % 7}" for i in rng.integers(90, size=120)]
    codes = np.array([int("rain" in text) for text in words])
    codes[rng.random(120) < 0.3] = -1
    one, other = TextExpert(key=7), TextExpert(key=7)
    for start in range(0, 120, 24):
        texts = {"title": tuple(words[start : start + 24])}
        one.learn(texts, codes[start : start + 24])
        other.learn(texts, codes[start : start + 24], hashed_grams(texts))
    for name, array in one.state()[1].items():
        np.testing.assert_array_equal(array, other.state()[1][name])
