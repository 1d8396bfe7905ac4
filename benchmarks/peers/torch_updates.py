"""The same learners as plain PyTorch loops, written for speed: the data is one table of normalised float32 rows in memory, a batch is one
`index_select`, one backward pass and one fused Adam step per update, targets move by one `_foreach_lerp_`.

`compiled`: losses and gradients go through `torch.compile`; the optimiser stays the fused kernel, which is the faster of the two.
"""

import math
import time
from itertools import pairwise

import numpy as np
from worker import serve


def setup(settings):
    import torch

    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    step = LEARNERS[settings["algorithm"]](torch, Table(torch, settings), settings)

    def answer(request):
        began = time.perf_counter()
        for _ in range(request["updates"]):
            step()
        return {"seconds": time.perf_counter() - began}

    return {"versions": {"torch": torch.__version__}}, answer


class Table:
    """Rows (observation, action, reward, bootstrap, next observation), normalised once."""

    def __init__(self, torch, settings):
        data = np.load(settings["data"])
        observation, following = data["observations"], np.roll(data["observations"], -1, axis=0)
        mean, std = observation.mean(0), observation.std(0)
        last = data["timeouts"] > 0
        columns = [
            (observation - mean) / std,
            data["actions"],
            data["rewards"].reshape(-1, 1),
            1.0 - data["terminals"].reshape(-1, 1),
            (following - mean) / std,
        ]
        rows = np.concatenate(columns, axis=1)[~last]
        self.torch, self.rows, self.batch = torch, torch.from_numpy(rows.astype(np.float32)), settings["batch"]
        self.widths = [column.shape[1] for column in columns]
        self.observation, self.action = self.widths[0], self.widths[1]

    def draw(self):
        index = self.torch.randint(len(self.rows), (self.batch,))
        return self.rows.index_select(0, index)


def mlp(torch, inputs, outputs, settings):
    widths = [inputs] + [settings["width"]] * settings["depth"]
    layers = [part for i, o in pairwise(widths) for part in (torch.nn.Linear(i, o), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], outputs))


def twins(torch, table, settings):
    return torch.nn.ModuleList(mlp(torch, table.observation + table.action, 1, settings) for _ in range(2))


def frozen_copy(network):
    import copy

    copied = copy.deepcopy(network)
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    return copied


def adam(torch, *networks):
    return torch.optim.Adam([p for network in networks for p in network.parameters()], lr=3e-4, fused=True)


def maybe_compiled(torch, settings, *functions):
    return [torch.compile(f, dynamic=False) if settings["compiled"] else f for f in functions]


def bc(torch, table, settings):
    actor = mlp(torch, table.observation, table.action, settings)
    optimiser = adam(torch, actor)

    def loss_of(rows):
        observation, action, *_ = rows.split(table.widths, 1)
        return torch.nn.functional.mse_loss(torch.tanh(actor(observation)), action)

    (loss_of,) = maybe_compiled(torch, settings, loss_of)

    def step():
        loss_of(table.draw()).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def td3_bc(torch, table, settings):
    actor, critics = mlp(torch, table.observation, table.action, settings), twins(torch, table, settings)
    target_actor, target_critics = frozen_copy(actor), frozen_copy(critics)
    actor_optimiser, critic_optimiser = adam(torch, actor), adam(torch, critics)
    targets = [*target_actor.parameters(), *target_critics.parameters()]
    count = 0

    def critic_loss(rows):
        observation, action, reward, bootstrap, following = rows.split(table.widths, 1)
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(action)).clamp_(-0.5, 0.5)
            next_action = (torch.tanh(target_actor(following)) + noise).clamp_(-1, 1)
            pair = torch.cat([following, next_action], 1)
            target = reward + 0.99 * bootstrap * torch.minimum(*(critic(pair) for critic in target_critics))
        pair = torch.cat([observation, action], 1)
        return sum(torch.nn.functional.mse_loss(critic(pair), target) for critic in critics)

    def actor_loss(rows):
        observation, logged, *_ = rows.split(table.widths, 1)
        action = torch.tanh(actor(observation))
        q = critics[0](torch.cat([observation, action], 1))
        return -2.5 / q.abs().mean().detach() * q.mean() + torch.nn.functional.mse_loss(action, logged)

    critic_loss, actor_loss = maybe_compiled(torch, settings, critic_loss, actor_loss)

    def step():
        nonlocal count
        count += 1
        rows = table.draw()
        critic_loss(rows).backward()
        critic_optimiser.step()
        critic_optimiser.zero_grad(set_to_none=True)
        if count % 2 == 0:
            critics.requires_grad_(False)
            actor_loss(rows).backward()
            critics.requires_grad_(True)
            actor_optimiser.step()
            actor_optimiser.zero_grad(set_to_none=True)
            with torch.no_grad():
                torch._foreach_lerp_(targets, [*actor.parameters(), *critics.parameters()], 0.005)

    return step


def iql(torch, table, settings):
    mean, value, critics = (
        mlp(torch, table.observation, table.action, settings),
        mlp(torch, table.observation, 1, settings),
        twins(torch, table, settings),
    )
    log_std = torch.nn.Parameter(torch.full((table.action,), -0.5))
    target_critics = frozen_copy(critics)
    optimiser = torch.optim.Adam([*mean.parameters(), log_std, *value.parameters(), *critics.parameters()], lr=3e-4, fused=True)
    sources, targets = [*critics.parameters()], [*target_critics.parameters()]

    def loss_of(rows):
        observation, action, reward, bootstrap, following = rows.split(table.widths, 1)
        pair = torch.cat([observation, action], 1)
        with torch.no_grad():
            target_q = torch.minimum(*(critic(pair) for critic in target_critics))
            target = reward + 0.99 * bootstrap * value(following)
        advantage = target_q - value(observation)
        weight = torch.where(advantage > 0, 0.7, 0.3)
        value_loss = (weight * advantage**2).mean()
        critic_loss = sum(torch.nn.functional.mse_loss(critic(pair), target) for critic in critics)
        scores = (3.0 * advantage.detach()).exp().clamp(max=100.0)[:, 0]
        error = (action - torch.tanh(mean(observation))) * torch.exp(-log_std)
        log_prob = -(0.5 * error**2 + log_std + 0.5 * math.log(2 * math.pi)).sum(1)
        return value_loss + critic_loss - (scores * log_prob).mean()

    (loss_of,) = maybe_compiled(torch, settings, loss_of)

    def step():
        loss_of(table.draw()).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(targets, sources, 0.005)

    return step


def cql(torch, table, settings):
    actor, critics = mlp(torch, table.observation, 2 * table.action, settings), twins(torch, table, settings)
    target_critics = frozen_copy(critics)
    log_temperature = torch.nn.Parameter(torch.zeros(()))
    actor_optimiser, critic_optimiser = adam(torch, actor), adam(torch, critics)
    temperature_optimiser = torch.optim.Adam([log_temperature], lr=3e-4)
    sources, targets = [*critics.parameters()], [*target_critics.parameters()]
    samples, width, weight = settings["action_samples"], table.action, settings["conservative_weight"]

    def sample(observation, count=None):
        mean, log_std = actor(observation).chunk(2, 1)
        log_std = log_std.clamp(-20, 2)
        shape = mean.shape if count is None else (mean.shape[0], count, width)
        mean, log_std = (mean, log_std) if count is None else (mean[:, None], log_std[:, None])
        noise = torch.randn(shape)
        raw = mean + log_std.exp() * noise
        squash = 2 * (math.log(2) - raw - torch.nn.functional.softplus(-2 * raw))
        log_prob = (-0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - squash).sum(-1)
        return torch.tanh(raw), log_prob

    def critic_loss(rows):
        observation, action, reward, bootstrap, following = rows.split(table.widths, 1)
        size = observation.shape[0]
        with torch.no_grad():
            next_action, next_log_prob = sample(following)
            pair = torch.cat([following, next_action], 1)
            next_q = torch.minimum(*(critic(pair) for critic in target_critics))
            target = reward + 0.99 * bootstrap * (next_q - log_temperature.exp() * next_log_prob[:, None])
            here, here_log_prob = sample(observation, samples)
            there, there_log_prob = sample(following, samples)
            anywhere = 2 * torch.rand((size, samples, width)) - 1
            actions = torch.cat([here, there, anywhere], 1)
            uniform = torch.full((size, samples), -width * math.log(2))
            log_probs = torch.cat([here_log_prob, there_log_prob, uniform], 1)
            pairs = torch.cat([observation[:, None].expand(-1, 3 * samples, -1), actions], 2).flatten(0, 1)
        pair, loss = torch.cat([observation, action], 1), 0.0
        for critic in critics:
            logged = critic(pair)
            spread = torch.logsumexp(critic(pairs).view(size, 3 * samples) - log_probs, 1)
            loss = loss + torch.nn.functional.mse_loss(logged, target) + weight * (spread - logged[:, 0]).mean()
        return loss

    def actor_loss(rows):
        observation = rows[:, : table.observation]
        action, log_prob = sample(observation)
        pair = torch.cat([observation, action], 1)
        q = torch.minimum(*(critic(pair) for critic in critics))[:, 0]
        return (log_temperature.exp().detach() * log_prob - q).mean(), log_prob.mean().detach()

    critic_loss, actor_loss = maybe_compiled(torch, settings, critic_loss, actor_loss)

    def step():
        rows = table.draw()
        critic_loss(rows).backward()
        critic_optimiser.step()
        critic_optimiser.zero_grad(set_to_none=True)
        critics.requires_grad_(False)
        loss, log_prob = actor_loss(rows)
        loss.backward()
        critics.requires_grad_(True)
        actor_optimiser.step()
        actor_optimiser.zero_grad(set_to_none=True)
        (-log_temperature * (log_prob - width)).backward()
        temperature_optimiser.step()
        temperature_optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(targets, sources, 0.005)

    return step


LEARNERS = {"bc": bc, "td3-bc": td3_bc, "iql": iql, "cql": cql}


if __name__ == "__main__":
    serve(setup)
