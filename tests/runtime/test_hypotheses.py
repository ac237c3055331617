"""Which finished replies count for which group, by hand."""

from edgechat.runtime.hypotheses import FinishedHypotheses, Hypothesis

P, Q, R, S = 5, 6, 7, 8


def ended(id: int, score: float) -> Hypothesis:
    return Hypothesis((id,), (score,), score, score, finished=True)


def ids(hypotheses: list[Hypothesis]) -> list[int]:
    return [id for hypothesis in hypotheses for id in hypothesis.tokens]


def test_a_reply_of_two_groups_counts_for_the_first_without_enough_better_ones():
    finished = FinishedHypotheses(n_best=2, groups=2)
    finished.add([(0, ended(Q, -2.0)), (1, ended(Q, -2.0 + 1e-9)), (1, ended(R, -3.0))])  # rows round apart
    assert ids(finished.n_best()) == [Q, R]  # Q of the first, so R of the second
    finished.add([(0, ended(P, -1.0))])
    assert ids(finished.n_best()) == [P, Q]  # now Q counts for the second
    assert [finished.score_to_beat(group) for group in (0, 1)] == [-1.0, -2.0]


def test_the_best_of_each_group_come_before_the_second_of_any():
    finished = FinishedHypotheses(n_best=3, groups=2)  # two of each are wanted
    finished.add([(0, ended(P, -1.0)), (0, ended(Q, -2.0)), (1, ended(R, -8.0)), (1, ended(S, -9.0))])
    assert ids(finished.n_best()) == [P, Q, R]


def test_a_group_has_nothing_to_beat_before_it_has_enough_replies():
    finished = FinishedHypotheses(n_best=2, groups=1)
    assert not finished
    finished.add([(0, ended(P, -1.0))])
    assert finished
    assert finished.score_to_beat(0) is None
    finished.add([(0, ended(Q, -4.0))])
    assert finished.score_to_beat(0) == -4.0
    finished.add([(0, ended(R, -2.0))])
    assert finished.score_to_beat(0) == -2.0
    assert ids(finished.n_best()) == [P, R]


def test_the_earlier_of_equal_scores_wins_and_a_reply_drawn_twice_is_one():
    finished = FinishedHypotheses(n_best=2, groups=1)
    finished.add([(0, ended(Q, -1.0)), (0, ended(Q, -1.0))])
    assert finished.score_to_beat(0) is None
    finished.add([(0, ended(P, -1.0))])
    finished.add([(0, ended(R, -1.0))])
    assert ids(finished.n_best()) == [Q, P]


def test_the_gap_includes_the_first_reply_that_does_not_count():
    finished = FinishedHypotheses(n_best=2, groups=1)
    assert finished.add([(0, ended(P, -1.0))]) == float("inf")
    assert finished.add([(0, ended(Q, -3.0)), (0, ended(R, -3.25)), (0, ended(S, -3.26))]) == 0.25
    assert finished.gap() == 2.0  # of those that count
