"""The formulas of language models under PyTorch against JAX, values and gradients, and inside TRL's GRPOTrainer against TRL's own losses.

    python benchmarks/crosscheck_torch.py

Needs a Python with polyact and torch (`pip install torch==2.13.0`), and trl for its part; what is not there is reported as missing. Prints
one JSON object: the largest difference of each, relative to the largest number. Works offline.
"""

import argparse
import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ANSWERS, LENGTH, PROMPTS = 48, 12, 6
BAR = 1e-4


def main() -> int:
    """Returns 1 when something differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="the same: it takes seconds")
    parser.add_argument("--peers", help="not used: torch must be importable here")
    parser.parse_args()
    result: dict[str, Any] = {"missing": [], "differences": {}}
    for library, check in {"torch": against_jax, "trl": against_trl}.items():
        try:
            result[library] = importlib.import_module(library).__version__
        except ImportError:
            result["missing"].append(library)
            continue
        result["differences"] |= check()
    result["all_equal"] = max(result["differences"].values(), default=0.0) < BAR if result["differences"] else None
    print(json.dumps(result, indent=1))
    return int(result["all_equal"] is False)


def against_jax() -> dict[str, float]:
    """Every advantage, and every loss with its gradient."""
    import jax
    import jax.numpy as jnp
    import torch

    from polyact.learning.language.surrogates import Terms

    rng, found = np.random.default_rng(0), {}
    reward, group = rng.random(ANSWERS).astype(np.float32), rng.integers(0, PROMPTS, ANSWERS)
    structure = rng.integers(0, 5, ANSWERS)
    for name, advantage in advantages().items():
        ours = advantage(*map(jnp.asarray, (reward, group, structure)))
        theirs = advantage(*map(torch.as_tensor, (reward, group, structure)))
        found[f"advantage {name}"] = apart(ours, theirs)
    columns = random_columns(rng)
    for name, loss in losses().items():
        terms = Terms(*map(jnp.asarray, columns))
        value, slope = jax.value_and_grad(lambda logp, terms=terms, loss=loss: loss(terms._replace(logp=logp)))(terms.logp)
        theirs = Terms(*(torch.as_tensor(column).clone() for column in columns))
        theirs.logp.requires_grad_()
        result = loss(theirs)
        result.backward()
        found[f"loss {name}"], found[f"gradient {name}"] = apart(value, result), apart(slope, theirs.logp.grad)
    return found


def advantages() -> dict[str, Any]:
    from polyact.learning.language import advantages as rules
    from polyact.systems.language.bnpo import beta_normalised
    from polyact.systems.language.stratified_grpo import stratified

    return {
        "centred": lambda reward, group, structure: rules.centred(reward, group),
        "group_relative": lambda reward, group, structure: rules.group_relative(reward, group),
        "leave_one_out": lambda reward, group, structure: rules.leave_one_out(reward, group),
        "batch_relative": lambda reward, group, structure: rules.batch_relative(reward),
        "beta_normalised": lambda reward, group, structure: beta_normalised(reward, group),
        "stratified": stratified,
    }


def losses() -> dict[str, Any]:
    from polyact.learning.language import surrogates as s
    from polyact.systems.language.cov_entropy import Between, Quantiles, clip_cov, kl_cov

    return {
        "unclipped": lambda t: s.token_mean(s.unclipped(t), t.mask),
        "clipped": lambda t: s.sequence_mean(s.clipped(t, 0.2, 0.28), t.mask),
        "dual_clipped": lambda t: s.sequence_sum(s.dual_clipped(t, 0.2, 0.28, 1.5), t.mask),
        "k1": lambda t: s.token_mean(s.kl_k1(t.logp, t.logp_ref), t.mask),
        "k2": lambda t: s.token_mean(s.kl_k2(t.logp, t.logp_ref), t.mask),
        "k3": lambda t: s.token_mean(s.kl_k3(t.logp, t.logp_ref), t.mask),
        "kl_cov": lambda t: kl_cov(t, share=0.1),
        "clip_cov bounds": lambda t: clip_cov(t, share=0.1, band=Between(0.5, 5.0)),
        "clip_cov quantiles": lambda t: clip_cov(t, share=0.1, band=Quantiles()),
    }


def random_columns(rng: Any) -> tuple[Any, ...]:
    """Log probabilities now and then, advantage, mask, noise, entropy and log probabilities of a reference [B, T]."""
    mask = (np.arange(LENGTH) < rng.integers(1, LENGTH + 1, ANSWERS)[:, None]).astype(np.float32)
    old = -rng.gamma(2.0, 1.0, mask.shape) * mask
    logp, reference = ((old + rng.normal(0, 0.5, mask.shape)) * mask for _ in range(2))
    entropy = rng.gamma(2.0, 0.5, mask.shape) * mask
    columns = (logp, old, rng.normal(size=mask.shape) * mask, mask, rng.random(mask.shape), entropy, reference)
    return tuple(column.astype(np.float32) for column in columns)


def against_trl() -> dict[str, float]:
    """Our losses in a trainer on a tiny random model against TRL's own on the same batch, and our advantage against TRL's; one epoch."""
    import torch
    import trl

    from polyact.learning.language import advantages as rules
    from polyact.learning.language import surrogates as s
    from polyact.learning.language.trl import with_terms

    ours = {  # TRL's name -> the same in our terms
        "grpo": lambda t: s.sequence_mean(s.clipped(t, 0.2, 0.28) + 0.1 * s.ratio(t) * s.kl_k3(t.logp, t.logp_ref), t.mask),
        "bnpo": lambda t: s.token_mean(s.clipped(t, 0.2, 0.28) + 0.1 * s.ratio(t) * s.kl_k3(t.logp, t.logp_ref), t.mask),
    }
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, loss in ours.items():
            trainer = tiny_trainer(with_terms(trl.GRPOTrainer, loss=loss), folder, kind)
            batch = perturbed(trainer._prepare_inputs(next(iter(trainer.get_train_dataloader()))))
            pair = []
            for compute in (type(trainer)._compute_loss, trl.GRPOTrainer._compute_loss):
                trainer.model.zero_grad()
                value = compute(trainer, trainer.model, batch)
                value.backward()
                slopes = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
                pair.append((value.detach(), torch.cat(slopes)))
            found[f"trl loss {kind}"], found[f"trl gradient {kind}"] = (apart(*each) for each in zip(*pair, strict=True))
        advantage = {}
        for name, base in {"theirs": trl.GRPOTrainer, "ours": with_terms(trl.GRPOTrainer, advantage=by_mean)}.items():
            torch.manual_seed(0)
            trainer = tiny_trainer(base, folder, "grpo", scale_rewards="none")
            trainer.model.train()
            advantage[name] = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))["advantages"]
        found["trl advantage"] = apart(advantage["ours"], advantage["theirs"])
        trainer = tiny_trainer(
            with_terms(trl.GRPOTrainer, loss=ours["bnpo"], advantage=lambda r, g: rules.leave_one_out(r[:, 0], g)), folder, "grpo"
        )
        assert np.isfinite(trainer.train().training_loss)
    return found


def by_mean(rewards: Any, group: Any) -> Any:
    from polyact.learning.language.advantages import centred

    return centred(rewards[:, 0], group)


def perturbed(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with log probabilities of an older policy and of a reference, so that ratios and divergences are not trivial."""
    import torch

    torch.manual_seed(1)
    like = batch["ref_per_token_logps"]
    return batch | {
        "old_per_token_logps": like + 0.3 * torch.randn_like(like),
        "ref_per_token_logps": like + 0.3 * torch.randn_like(like),
    }


def tiny_trainer(kind: type, folder: str, loss_type: str, **options: Any) -> Any:
    """A GRPOTrainer on a random two-layer model over twelve words; answers are rewarded for the first letter."""
    import torch
    import trl
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<end>", *"abcdefghij"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    torch.manual_seed(0)
    place = str(Path(folder) / "model")
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=1,
        )
    ).save_pretrained(place)
    config = trl.GRPOConfig(
        str(Path(folder) / "run"),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=6,
        num_train_epochs=1,
        beta=0.1,
        epsilon=0.2,
        epsilon_high=0.28,
        loss_type=loss_type,
        report_to="none",
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        seed=0,
        **options,
    )
    data = Dataset.from_dict({"prompt": [f"{a} {b}" for a in "abcd" for b in "efgh"]})

    def first_letter(completions: list[str], **_: Any) -> list[float]:
        return [float(text.strip()[:1] in "abcde" and bool(text.strip())) for text in completions]

    return kind(model=place, reward_funcs=first_letter, args=config, train_dataset=data, processing_class=fast)


def apart(ours: Any, theirs: Any) -> float:
    """The largest difference, relative to the largest number."""
    first, second = (np.asarray(x.detach() if hasattr(x, "detach") else x, np.float64) for x in (ours, theirs))
    return float(np.abs(first - second).max() / max(np.abs(first).max(), 1e-12))


if __name__ == "__main__":
    raise SystemExit(main())
