"""Rates are averages over a few seconds."""

from raystream.metrics.rates import WINDOW_MS, RateWindow


def test_first_rate_is_that_since_the_beginning():
    window = RateWindow(1_000.0, 2)

    assert window.sample(1_500.0, (5, 0)) == (10.0, 0.0)


def test_what_was_before_the_window_does_not_count():
    window = RateWindow(0.0, 1)
    for second in range(1, 11):
        window.sample(second * 1_000.0, (1_000_000,))
    (rate,) = window.sample(11_000.0, (1_000_000 + WINDOW_MS / 1_000,))

    assert rate == 1.0


def test_time_in_which_nothing_could_be_sampled_counts_whole():
    window = RateWindow(0.0, 1)
    window.sample(1_000.0, (1_000,))

    assert window.sample(21_000.0, (21_000,)) == (1_000.0,)


def test_two_samples_of_one_moment_have_no_rate():
    assert RateWindow(0.0, 1).sample(0.0, (7,)) == (0.0,)
