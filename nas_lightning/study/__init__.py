"""Studies: many runs from one file, run by local processes or Ray, and what they give. No torch."""

from nas_lightning.study.convergence import convergence_statistics
from nas_lightning.study.read import read_study
from nas_lightning.study.results import Results, collect_results, write_results
from nas_lightning.study.run import run_study
from nas_lightning.study.state import RunState, Status, run_state
from nas_lightning.study.study import AnalysisFile, Architecture, Run, Study

__all__ = [
    "AnalysisFile",
    "Architecture",
    "Results",
    "Run",
    "RunState",
    "Status",
    "Study",
    "collect_results",
    "convergence_statistics",
    "read_study",
    "run_state",
    "run_study",
    "write_results",
]
