"""Is this cell better than a random one? What an audit compares, without training.

Exact ranks of a cell among all wirings of its space, matched random controls, and the verdict. No torch:
``nas_lightning.audit.initial``, which measures initial weights, and ``nas_lightning.audit.run``, which plans
and runs a whole audit, are imported only when used.
"""

from nas_lightning.audit.controls import Controls, matched_controls
from nas_lightning.audit.published import PublishedAudit, audit_published, published_table, published_tables
from nas_lightning.audit.settings import AuditSettings
from nas_lightning.audit.standing import Standing, among_controls, in_space
from nas_lightning.audit.structure import CellStructure, SizeStanding, Structure, audit_structure
from nas_lightning.audit.subjects import Subject, read_subjects
from nas_lightning.audit.verdict import Property, Verdict, level_0_verdict

__all__ = [
    "AuditSettings",
    "CellStructure",
    "Controls",
    "Property",
    "PublishedAudit",
    "SizeStanding",
    "Standing",
    "Structure",
    "Subject",
    "Verdict",
    "among_controls",
    "audit_published",
    "audit_structure",
    "in_space",
    "level_0_verdict",
    "matched_controls",
    "published_table",
    "published_tables",
    "read_subjects",
]
