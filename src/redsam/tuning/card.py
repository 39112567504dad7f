"""A model card in a page: what was trained, on what, and what it gained on held-out photographs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redsam import registry
from redsam.tuning.delta import Delta


def card(delta: Delta, facts: Mapping[str, Any]) -> str:
    """Markdown."""
    name, settings = str(delta.method["name"]), facts["settings"]
    before, after, held = facts["before"], facts["after"], facts["held_out"]
    gain, cost = after["robust"] - before["robust"], before["clean"] - after["clean"]
    kinds = sorted({c["kind"] for c in facts["changed"]})
    where = [f"`{c['weight']}` ({c['numbers']})" for c in facts["changed"][:6]]
    more = f" and {len(facts['changed']) - 6} more" if len(facts["changed"]) > 6 else ""
    paper = registry.get("defense", name).meta.get("paper", "")
    nothing = (
        "> **Unchanged**: no numbers that were tried held more under attack at the clean cost allowed.\n\n"
        if not facts["best"].get("step")
        else ""
    )
    limits = {"steps": settings["steps"], "minutes": settings["minutes"]}
    budget = " or ".join(f"{value:g} {unit}" for unit, value in limits.items() if value)
    return "\n".join([
        f"# {delta.model}, hardened by {name}", "",
        nothing + f"{facts['numbers']:,} of {facts['parameters']:,} numbers were trained "
        f"({100 * facts['numbers'] / facts['parameters']:.3f} %, {', '.join(kinds)}): {', '.join(where)}{more}. "
        f"Frozen, and compared after training: {facts['tensors_frozen']} of {facts['tensors']} tensors were the "
        "original's in every bit; the trained numbers were then merged.", "",
        f"Method `{name}` {_options(delta.method['args'])}, after {paper}.", "",
        "## Held-out IoU with the annotation", "",
        f"{held['images']} photographs that were not trained on but chose when to stop, {held['prompts']} prompts; "
        f"robust: through the model's own gradients, {', '.join(settings['check_attacks'])}, "
        f"eps {settings['eps'] * 255:g}/255 linf.", "",
        "| | clean | robust |", "|---|---|---|",
        f"| before | {before['clean']:.3f} | {before['robust']:.3f} |",
        f"| after | {after['clean']:.3f} | {after['robust']:.3f} |",
        f"| change | {-cost:+.3f} | {gain:+.3f} |", "",
        "These photographs chose the stopping point and these attacks were trained against, so the gain is an upper "
        "view. Measure it on others, by attacks it has not seen: `redsam audit THIS_FOLDER`.", "",
        "## Training", "",
        f"{facts['images']} photographs of {facts['data']} (fingerprint {settings['data']}), {facts['steps']} steps of "
        f"{settings['batch']} in {facts['minutes']:g} minutes (allowed: {budget}), ended {facts['ended']}; best check "
        f"at step {facts['best'].get('step', 0)}, {facts['best'].get('share', 1):g} of the way from the original. "
        f"{settings['adversarial']:.0%} of each batch attacked by {', '.join(settings['attacks'])}; "
        f"prompts {settings['prompts']}, up to {settings['objects']} objects; seed {settings['seed']}. "
        f"{len(facts['skipped'])} photographs could not be used.", "",
        "## Files", "",
        "`config.json` and `model.safetensors` load with transformers alone. `delta.safetensors` turns the original "
        f"(fingerprint {delta.before}) into this model (fingerprint {delta.after}), bit for bit: "
        "`redsam harden MODEL --delta delta.safetensors --out DIR`. `hardening.json` has every setting and check.", "",
        "The terms of the original weights and of the photographs go on to apply.", "",
    ])  # fmt: skip


def _options(args: Mapping[str, Any]) -> str:
    told = ", ".join(f"{k}={v}" for k, v in args.items() if v is not None)
    return f"({told})"
