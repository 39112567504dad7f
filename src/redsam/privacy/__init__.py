"""The identity-leak audit: does a text-prompted model know people's names? Nothing leaves the machine.

`read_people` a folder per person, `audit` any `detect(image, text) -> detections`, read the verdicts.
"""

from redsam.privacy.audit import Audited, Plan, audit
from redsam.privacy.decoys import DECOYS, invent, read_decoys
from redsam.privacy.grids import Geometry, Grid, draw
from redsam.privacy.labels import labels
from redsam.privacy.people import People, Person, Skipped, read_people
from redsam.privacy.scoring import Counts, Detect, Detection, Detector, Marks, chance_lines, count, marks
from redsam.privacy.singling import allowed
from redsam.privacy.verdicts import Answers, Claims, NameResult, Rule, claim, judge

__all__ = [
    "DECOYS",
    "Answers",
    "Audited",
    "Claims",
    "Counts",
    "Detect",
    "Detection",
    "Detector",
    "Geometry",
    "Grid",
    "Marks",
    "NameResult",
    "People",
    "Person",
    "Plan",
    "Rule",
    "Skipped",
    "allowed",
    "audit",
    "chance_lines",
    "claim",
    "count",
    "draw",
    "invent",
    "judge",
    "labels",
    "marks",
    "read_decoys",
    "read_people",
]
