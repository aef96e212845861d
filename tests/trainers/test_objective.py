import torch

from trainers.objective import add_noise, draw_noise, draw_timesteps, loss_weight, target


def test_stratified_timesteps_take_one_of_each_part_in_another_order_every_step():
    orders = set()
    for step in range(6):
        t = draw_timesteps(1, step, 8, 1000, stratified=True)
        assert sorted((t // 125).tolist()) == list(range(8))
        orders.add(tuple((t // 125).tolist()))
    assert len(orders) == 6


def test_draws_depend_on_seed_step_and_slot_alone():
    state = torch.get_rng_state()
    a = draw_noise(1, 2, 3, torch.Size((4, 8, 8)), 0.1)
    torch.rand(5)
    torch.set_rng_state(state)
    assert torch.equal(a, draw_noise(1, 2, 3, torch.Size((4, 8, 8)), 0.1))
    assert not torch.equal(a, draw_noise(1, 2, 4, torch.Size((4, 8, 8)), 0.1))
    assert not torch.equal(a, draw_noise(1, 3, 3, torch.Size((4, 8, 8)), 0.1))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_noise_offset_moves_whole_channels():
    plain = draw_noise(1, 2, 3, torch.Size((4, 8, 8)))
    moved = draw_noise(1, 2, 3, torch.Size((4, 8, 8)), 0.5) - plain
    assert torch.allclose(moved, moved[:, :1, :1].expand_as(moved), atol=1e-6) and moved.abs().max() > 0


def test_from_eps_and_from_v_the_same_picture_comes_back():
    x0, noise, a = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3), torch.tensor([0.9, 0.2])
    x, root, rest = add_noise(x0, noise, a), a.sqrt()[:, None, None, None], (1 - a).sqrt()[:, None, None, None]
    assert torch.allclose((x - rest * target("eps", x0, noise, a)) / root, x0, atol=1e-5)
    assert torch.allclose(root * x - rest * target("v", x0, noise, a), x0, atol=1e-6)


def test_loss_weights_are_those_of_the_paper():
    a = torch.tensor([0.5, 10 / 11])  # snr 1 and 10
    assert torch.allclose(loss_weight("eps", a, 5.0), torch.tensor([1.0, 0.5]))
    assert torch.allclose(loss_weight("v", a, 5.0), torch.tensor([0.5, 5 / 11]))
    assert loss_weight("eps", a, 0.0).tolist() == [1.0, 1.0]


def test_a_v_like_loss_hears_the_noisy_steps_more():
    a = torch.tensor([0.0, 0.5])  # snr 0 and 1
    assert torch.allclose(loss_weight("eps", a, 0.0, 0.5), torch.tensor([26.0, 1 + 0.5 / 1.02]))
    assert loss_weight("v", a, 0.0, 0.5).tolist() == [1.0, 1.0]
