"""The identity-leak audit: does a text-prompted model know people's names? Nothing leaves the machine.

`read_people` a folder per person, `audit` any `detect(image, text) -> detections`, read the verdicts.
"""

from redsam.privacy.audit import Audited, Plan, audit
from redsam.privacy.grids import Geometry, Grid, draw
from redsam.privacy.labels import labels
from redsam.privacy.people import People, Person, Skipped, read_people
from redsam.privacy.scoring import Counts, Detect, Detection, Marks, chance_lines, count, marks
from redsam.privacy.verdicts import Answers, NameResult, Rule, judge

__all__ = [
    "Answers",
    "Audited",
    "Counts",
    "Detect",
    "Detection",
    "Geometry",
    "Grid",
    "Marks",
    "NameResult",
    "People",
    "Person",
    "Plan",
    "Rule",
    "Skipped",
    "audit",
    "chance_lines",
    "count",
    "draw",
    "judge",
    "labels",
    "marks",
    "read_people",
]
