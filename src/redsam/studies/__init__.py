"""Studies: published evaluation protocols as named runs on any model and data, with the published rows beside.

Not to be mixed up with the registry's kind "protocol", which says how an image is prompted. One file per study.
"""

from redsam.studies.base import Request, Study, study
from redsam.studies.findings import Findings
from redsam.studies.tables import Table

__all__ = ["Findings", "Request", "Study", "Table", "study"]
