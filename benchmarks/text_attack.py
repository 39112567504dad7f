"""Texts attacked by FGSM* and FIGA to the published stop rule: the study `text-attack`, its numbers kept.

    python benchmarks/text_attack.py --data ../shared/data/eval/coco_panoptic_val --limit 20
    python benchmarks/text_attack.py --steps 150 --figa-steps 250 --out benchmarks/results/text_attack_long.json

The first images that hold a person, asked for "person" as the notebook does. Typed again, it goes on where it was. At
most 125 gradients an image (400 with the second line, which asks how many the stop rule takes), each 0.25 s of a core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from redsam.data import open_data
from redsam.models import load
from redsam.studies import study


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lab-text", help="anything that takes a text")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval/coco_panoptic_val"))
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--text", default="person", help="what is asked for, a name of the set")
    parser.add_argument("--steps", type=int, default=None, help="of FGSM*; default: the goal's own 25")
    parser.add_argument("--figa-steps", type=int, default=100)
    parser.add_argument("--work", type=Path, default=Path("text-attack-run"), help="records, report, attacked images")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/text_attack.json"))
    args = parser.parse_args()
    model = load(args.model)
    data = open_data(args.data)
    named = [scene.id for scene in data if args.text in scene.meta.get("classes", ())]
    asked = study("text-attack", names=(args.text,), steps=args.steps, figa_steps=args.figa_steps)
    found = asked.run(model, data.subset(named[: args.limit]), out=args.work)
    longer = "" if args.steps is None else f" --steps {args.steps} --figa-steps {args.figa_steps}"
    command = f"python benchmarks/text_attack.py --limit {args.limit}{longer}"
    kept = {"command": command, "fingerprint": model.fingerprint()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(kept | found.to_json(), indent=1) + "\n")
    print(found.markdown())


if __name__ == "__main__":
    main()
