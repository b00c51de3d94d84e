import torch

from tiltyard_baselines.serve.sampling import Sampler, cut_at_stop, nucleus


def test_nucleus_keeps_the_smallest_sufficient_set() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.3, 0.1])
    assert nucleus(probabilities, 0.8).tolist() == torch.tensor([0.0, 0.5, 0.3, 0.0]).tolist()
    assert nucleus(probabilities, 1e-9).count_nonzero() == 1
    assert nucleus(probabilities, 1.0).equal(probabilities)


def test_cuts_at_the_earliest_stop() -> None:
    assert cut_at_stop("one\ntwo END", ("END", "\n")) == "one"
    assert cut_at_stop("one", ("\n",)) is None
    assert cut_at_stop("one", ()) is None
    assert cut_at_stop("\n", ("\n",)) == ""


def test_sampling_follows_the_distribution_and_the_seed() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0]).log_softmax(-1)
    sampler = Sampler(1.0, 1.0, seed=3)
    draws = [sampler.pick(logits, 1) for _ in range(4000)]
    shares = torch.bincount(torch.tensor(draws), minlength=3) / 4000
    torch.testing.assert_close(shares, logits.exp(), atol=0.03, rtol=0)
    again = Sampler(1.0, 1.0, seed=3)
    assert [again.pick(logits, 1) for _ in range(50)] == draws[:50]


def test_no_temperature_is_greedy() -> None:
    assert Sampler(0.0, 1.0, seed=None).pick(torch.tensor([0.1, 3.0, 2.0]), 1) == 1
