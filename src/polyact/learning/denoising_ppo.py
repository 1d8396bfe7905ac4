"""PPO on a pre-trained denoising policy: every denoising step is an action drawn from a Gaussian (DPPO, arXiv 2409.00588)."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from polyact.envs.base import Action, Env, State, Step
from polyact.envs.wrappers import Wrapper
from polyact.learning.actor_critic import ActorCritic, Judgement
from polyact.learning.base import Decision, Metrics, OnPolicyLearner, Trajectory
from polyact.learning.moments import Moments, ReturnScale
from polyact.learning.ppo import PPO, PPOState
from polyact.nets.mlp import MLP
from polyact.policies.base import Memory, Observation
from polyact.policies.generative.chain import Sampler, record, step_log_prob
from polyact.policies.generative.denoised import Field
from polyact.policies.generative.denoising import DenoisingPolicy
from polyact.policies.generative.paths import Path
from polyact.policies.generative.steppers import DDIM, Earlier, Stepper
from polyact.policies.generative.steppers import Step as ChainStep
from polyact.policies.spec import Body, Spec
from polyact.spaces import Box, Space

FAR = 100.0  # bounds that no number of a chain reaches


class Exploring(Stepper):
    """Ancestral steps whose standard deviation is at least `floor`, the last one's too: exploration, and densities that stay finite."""

    floor: float = eqx.field(static=True, default=0.1)

    def step(
        self,
        field: Field,
        path: Path,
        noisy: Float[Array, "*shape"],
        time: Float[Array, ""],
        next: Float[Array, ""],
        earlier: Earlier,
        key: PRNGKeyArray,
    ) -> ChainStep:
        step = DDIM(1.0).step(field, path, noisy, time, next, earlier, key)
        assert step.std is not None
        return replace(step, std=jnp.maximum(step.std, self.floor))


class ChainActions(Wrapper):
    """A world of chunks (`env`) whose action is a whole chain [(steps + 1) * W] in unit coordinates; its last W numbers are played."""

    env: Env
    body: Body
    steps: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    @property
    def observation_space(self) -> Space:
        return self.env.observation_space

    @property
    def action_space(self) -> Space:
        limit = np.full((self.steps + 1) * self.width, FAR, np.float32)
        return Box(-limit, limit)

    @property
    def horizon(self) -> int:
        return self.env.horizon

    def inner(self, state: State) -> State:
        return state

    def reset(self, key: PRNGKeyArray) -> tuple[State, Observation]:
        return self.env.reset(key)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Step]:
        unit = self.body.continuous.clip(action[-self.width :].reshape(-1, self.body.continuous.width))
        return self.env.step(state, jnp.asarray(jax.vmap(self.body.to_env)(unit)).reshape(-1), key)


class ChainCritic(ActorCritic):
    """A denoising policy and a critic of observations alone; a unit is one denoising step of one decision.

    later: the factor on the advantage of a denoising step for each step that follows it (the paper's denoising discount).
    """

    actor: DenoisingPolicy
    critic: MLP
    later: float = eqx.field(static=True)

    @property
    def body(self) -> Body:
        return self.actor.body

    @property
    def steps(self) -> int:
        return self.actor.sampler.steps

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Any, memory: Memory, key: PRNGKeyArray) -> tuple[Decision, Memory]:
        first, rest = jax.random.split(key)
        field = self.actor.clipped(self.actor.field(self._condition(observation)))
        chain = record(self.actor.sampler, self.actor.path, field, self.actor.noise(first), rest)
        log_prob = jax.vmap(lambda value, mean, std: step_log_prob(value, mean, std))(chain.values[1:], chain.means, chain.stds)
        return Decision(chain.values.reshape(-1), _averaged(log_prob), self._value(observation)), memory

    def following_values(self, trajectory: Trajectory) -> Float[Array, "T N"]:
        return jax.vmap(jax.vmap(self._value))(trajectory.next_observation)

    def units(self, trajectory: Trajectory, columns: PyTree) -> PyTree:
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (trajectory, columns))
        decisions = len(flat[0].value)
        level = jnp.tile(jnp.arange(self.steps), decisions)
        log_prob = flat[0].log_prob.reshape(-1)
        trajectory, columns = jax.tree.map(lambda leaf: jnp.repeat(leaf, self.steps, axis=0), flat)
        trajectory = replace(trajectory, log_prob=log_prob, memory=level)
        return trajectory, replace(columns, advantage=columns.advantage * self.later ** (self.steps - 1.0 - level))

    def judge(self, unit: Trajectory) -> Judgement:
        values = unit.action.reshape(self.steps + 1, self.actor.horizon, -1)
        log_prob, std = self.step_log_prob(unit.observation, values, unit.memory)
        return Judgement(log_prob, jnp.log(std) + 0.5 * jnp.log(2 * jnp.pi * jnp.e), self._value(unit.observation))

    def step_log_prob(
        self, observation: Any, values: Float[Array, "L H A"], level: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The mean log density of the entries of step `level` of a chain, and their standard deviation."""
        field, path = self.actor.clipped(self.actor.field(self._condition(observation))), self.actor.path
        levels = path.levels(self.steps)
        now = values[level]
        step = self.actor.sampler.stepper.step(
            field, path, now, levels[level], levels[level + 1], Earlier.none(now), jax.random.key(0)
        )
        assert step.std is not None
        return _averaged(step_log_prob(values[level + 1], step.mean, step.std)[None])[0], step.std

    def _condition(self, observation: Any) -> Array:
        return self.actor.condition(self.actor.observe(observation, self.actor.start(jax.random.key(0))))

    def _value(self, observation: Any) -> Float[Array, ""]:
        return self.critic(self.body.features(observation))[0]


def _averaged(log_prob: Float[Array, "K H A"]) -> Float[Array, " K"]:
    """Clamped entry by entry and averaged over the chunk, as the paper does."""
    return jnp.clip(log_prob, -5.0, 2.0).mean((1, 2))


class DenoisingPPO(OnPolicyLearner):
    """Fine-tunes `base` in a world of chains (`ChainActions`): `ppo` on (decision, denoising step) pairs.

    Its observations are normalised as the base's are. later: the denoising discount; floor: of a step's standard deviation.
    """

    base: DenoisingPolicy
    ppo: PPO = PPO(minibatches=8, epochs=5, normalise_observations=False)
    rollout_length: int = eqx.field(static=True, default=32)
    steps: int = eqx.field(static=True, default=5)
    later: float = eqx.field(static=True, default=0.99)
    floor: float = eqx.field(static=True, default=0.1)

    def init(self, spec: Spec, key: PRNGKeyArray) -> PPOState:
        actor = replace(self.base, sampler=Sampler(Exploring(self.floor), self.steps))
        critic = self.ppo.network.build(self.base.body.observation_width, 1, key)
        model = ChainCritic(actor, critic, self.later)
        optimiser = self.ppo.optimiser.init(model, spec.steps * self.ppo.epochs * (self.ppo.minibatches or 32))
        return PPOState(model, optimiser, Moments.none(spec.observation_width), ReturnScale.unit())

    def start(self, state: PPOState, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, state: PPOState, observation: Any, memory: Memory, key: PRNGKeyArray) -> tuple[Decision, Memory]:
        return self.ppo.act(state, observation, memory, key)

    def update(self, state: PPOState, trajectory: Trajectory, key: PRNGKeyArray) -> tuple[PPOState, Metrics]:
        return self.ppo.update(state, trajectory, key)

    def policy(self, state: PPOState) -> DenoisingPolicy:
        """The trained policy with the base's own sampler."""
        actor = state.model.actor
        assert isinstance(actor, DenoisingPolicy)
        return replace(actor, sampler=self.base.sampler)
