"""The same advantages and losses inside TRL's GRPOTrainer, on Hugging Face weights.

    from trl import GRPOConfig, GRPOTrainer
    from polyact.learning.language import advantages, surrogates, trl

    def loss(terms):
        return surrogates.token_mean(surrogates.clipped(terms, 0.2, 0.28), terms.mask)

    def advantage(rewards, group):                            # [N, F], [N] -> [N]
        return advantages.leave_one_out(rewards[:, 0], group)

    trainer = trl.with_terms(GRPOTrainer, loss=loss, advantage=advantage)(
        model="Qwen/Qwen2.5-0.5B", reward_funcs=correct, args=GRPOConfig("out"), train_dataset=prompts
    )
    trainer.train()

Written for the interface of trl 1.16. This file imports neither trl nor torch: both come with the class that is handed in.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from polyact.errors import PolyactError
from polyact.learning.language.advantages import per_token
from polyact.learning.language.arrays import array_namespace, floats, stop_gradient
from polyact.learning.language.surrogates import Loss, Terms

Trainer = TypeVar("Trainer")
_UNUSED = {  # setting -> the value at which it does nothing
    "top_entropy_quantile": 1.0,
    "off_policy_mask_threshold": None,
    "_entropy_bonus_enabled": False,
    "aux_loss_enabled": False,
    "use_vllm": False,
}


def with_terms(
    base: type[Trainer], *, loss: Loss | None = None, advantage: Callable[[Any, Any], Any] | None = None
) -> type[Trainer]:
    """A subclass of TRL's GRPOTrainer with our loss, our advantage, or both; everything else is TRL's.

    loss: Terms of torch tensors -> scalar. advantage: (rewards [N, F], group [N]) -> [N], over the answers of all processes; F is the
    number of reward functions, whose weights it sees none of. What a learner wants to know beside the reward (for instance the number of
    searches as stratum) is a further reward function. Raises PolyactError when neither is given.
    """
    if loss is None and advantage is None:
        raise PolyactError("with_terms needs a loss, an advantage or both")
    members: dict[str, Any] = {}
    if loss is not None:
        members["_compute_loss"] = compute_loss(loss)
    if advantage is not None:
        members["_calculate_rewards"] = _remembering_rewards(base)
        members["_generate_and_score_completions"] = _with_advantage(base, advantage)
    return cast(type[Trainer], type(f"{base.__name__}WithTerms", (base,), members))


def compute_loss(loss: Loss) -> Callable[[Any, Any, dict[str, Any]], Any]:
    """A `_compute_loss` for a subclass of GRPOTrainer: (trainer, model, inputs) -> scalar, scaled for gradient accumulation.

    Raises PolyactError for settings of the trainer that our loss would silently drop.
    """

    def _compute_loss(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        _refuse_unused(self)
        terms = terms_of(self, model, inputs)
        value = loss(terms)
        training = self.model.training
        entropy = (terms.entropy * terms.mask).sum() / array_namespace(terms.mask).clip(terms.mask.sum(), 1, None)
        self._metrics["train" if training else "eval"]["entropy"].append(stop_gradient(entropy).item())
        return value / (self.current_gradient_accumulation_steps if training else 1.0)

    return _compute_loss


def terms_of(trainer: Any, model: Any, inputs: dict[str, Any]) -> Terms:
    """What a loss may look at, from a batch of TRL: completions only, tool outputs masked."""
    answer, asked = inputs["completion_ids"], inputs["prompt_ids"]
    xp = array_namespace(answer)
    logp, entropy, *_ = trainer._get_per_token_logps_and_entropies(
        model,
        xp.cat([asked, answer], 1),
        xp.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
        answer.shape[1],
        compute_entropy=True,
    )
    mask = floats(inputs["completion_mask"], logp)
    if "tool_mask" in inputs:
        mask = mask * inputs["tool_mask"]
    old = inputs.get("old_per_token_logps")
    noise = xp.empty_like(mask).uniform_()
    return Terms(
        logp * mask,
        (stop_gradient(logp) if old is None else old) * mask,
        per_token(inputs["advantages"], mask),
        mask,
        noise,
        entropy * mask,
        inputs.get("ref_per_token_logps"),
    )


def _refuse_unused(trainer: Any) -> None:
    for name, nothing in _UNUSED.items():
        if getattr(trainer, name, nothing) != nothing:
            raise PolyactError(f"GRPOConfig sets {name.strip('_')}, which a loss of polyact would drop: leave it at its default")


def _remembering_rewards(base: type) -> Callable[..., Any]:
    def _calculate_rewards(self: Any, *arguments: Any, **named: Any) -> Any:
        self._rewards_seen = base._calculate_rewards(self, *arguments, **named)  # pyright: ignore[reportAttributeAccessIssue]
        return self._rewards_seen

    return _calculate_rewards


def _with_advantage(base: type, advantage: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def _generate_and_score_completions(self: Any, inputs: Any) -> Any:
        batch = base._generate_and_score_completions(self, inputs)  # pyright: ignore[reportAttributeAccessIssue]
        rewards, size = self._rewards_seen, len(batch["completion_ids"])
        answers = self.num_generations if self.model.training else self.num_generations_eval
        xp = array_namespace(rewards)
        if xp.isnan(rewards).any():
            raise PolyactError("a reward function returned None for some answers: an advantage of polyact needs a number for each")
        group = xp.arange(len(rewards), device=rewards.device) // answers
        first = self.accelerator.process_index * size
        return batch | {"advantages": advantage(rewards, group)[first : first + size]}

    return _generate_and_score_completions
