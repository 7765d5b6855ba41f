"""The learner's settings: what changes predictions, and nothing else.

They are part of what makes two runs equal: the same log, the same LearnerSettings, the same
weights, bit for bit on one machine. Figures: docs/learner.md.
"""

from dataclasses import dataclass

from streamlearn.errors import ConfigError

STOP_WORD_LISTS = ("keep", "english")  # core.text has them
NETWORKS = ("off", "images", "all")
DEVICES = ("auto", "cpu", "cuda")
LOSSES = ("der++", "er-ace", "er")


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSettings:
    """Defaults were measured prequentially on six streams; other streams may want others."""

    seed: int = 0
    step_events: int = 256  # events tested before their labels are learned; small learns better
    random_features: int = 200  # D: 64 .944, 128 .948, 256 .958 on watch_imu; cost grows with D^2
    half_lives: tuple[float, ...] = (2.0, 10.0, 50.0)  # events, of what is new against the past
    label_decays: tuple[float, ...] = (0.5, 0.9, 0.99)  # of recent label frequencies
    max_context_columns: int = 64  # above it, numbers get no recent-past features
    windows: tuple[float, ...] = (100.0, 1000.0, float("inf"))  # events, the heads' time scales
    softmax_rates: tuple[float, ...] = (0.005, 0.05)  # .02 and .1: elec2 at 256 .884, not .886
    plain_rates: tuple[float, ...] = (0.02,)  # on [1, z] alone; .005: Hyperplane .923, not .925
    trees: int = 8  # of the forest; elec2 at 32: 5 lose .002 against 10; 0: none
    neighbours: int = 1024  # recent events compared; 500 lose .001..006 on RBF, trees; 0: none
    reservoir_per_class: int = 20
    stop_words: str = "keep"  # or "english": left out of words (huffpost .675, not .672)
    late_labels: int = 0  # unlabelled events with an id that are remembered; 0: none (pending)
    late_label_max_age_s: float = 86_400.0  # older than this, by event time, they are not learned
    network: str = "images"  # which streams have an adapted network: "off", "images", "all"
    network_loss: str = "der++"  # or "er", "er-ace" (adapt_settings has what each measured)
    network_steps: int = 4  # k of the inner loop
    network_rate: float = 0.2  # on images (.4: unsteady); on numbers half of it
    network_merge: float = 0.0  # share of the anchor at a boundary (compensate)
    network_align: bool = False  # new classes' head columns at a boundary (compensate)
    network_proximal: float = 0.0  # pull to the anchor, by importance (compensate)
    network_device: str = "auto"  # the inner loop's: "cpu", "cuda", or a GPU where there is one;
    # weights are the same bits on one kind of device, not on both
    text_weights: int = 1 << 21  # of texts' words, 5 bytes each; 2^20 loses .003 at 29 classes

    def __post_init__(self) -> None:
        """ConfigError where a learner could not run."""
        least = {
            "seed": (self.seed, 0),
            "step_events": (self.step_events, 1),
            "random_features": (self.random_features, 1),
            "max_context_columns": (self.max_context_columns, 0),
            "trees": (self.trees, 0),
            "neighbours": (self.neighbours, 0),
            "reservoir_per_class": (self.reservoir_per_class, 1),
            "late_labels": (self.late_labels, 0),
            "late_label_max_age_s": (self.late_label_max_age_s, 0.0),
            "text_weights": (self.text_weights, 1),
            "network_steps": (self.network_steps, 1),
            "network_rate": (self.network_rate, 1e-6),
            "network_merge": (self.network_merge, 0.0),
            "network_proximal": (self.network_proximal, 0.0),
            "the shortest of half_lives": (min(self.half_lives, default=1.0), 1e-3),
            "the shortest of windows": (min(self.windows, default=0.0), 2.0),
            "the smallest of softmax_rates": (min(self.softmax_rates, default=0.0), 1e-6),
            "the smallest of plain_rates": (min(self.plain_rates, default=1.0), 1e-6),
        }
        for name, (value, limit) in least.items():
            if not value >= limit:
                raise ConfigError(f"learner setting {name} is {value}; it must be {limit} or more")
        one_of = {
            "stop_words": (self.stop_words, STOP_WORD_LISTS),
            "network": (self.network, NETWORKS),
            "network_loss": (self.network_loss, LOSSES),
            "network_device": (self.network_device, DEVICES),
        }
        for name, (word, words) in one_of.items():
            if word not in words:
                raise ConfigError(
                    f"learner setting {name} is {word!r}; choose one of {', '.join(words)}"
                )
        if self.network_merge > 1.0:
            raise ConfigError(
                f"learner setting network_merge is {self.network_merge}; it is a share, at most 1"
            )
        if not self.late_label_max_age_s < float("inf"):
            raise ConfigError(
                f"learner setting late_label_max_age_s is {self.late_label_max_age_s}; it must be "
                "finite: 1e12 is for ever"
            )
        if not all(0.0 < decay < 1.0 for decay in self.label_decays):
            raise ConfigError(
                f"learner setting label_decays is {self.label_decays}; each lies between 0 and 1"
            )
