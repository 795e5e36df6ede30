"""MemSR's Figure 4, at x2: crops of photographs as IMDN, the pair's teacher, its students and ours enlarge them."""

from __future__ import annotations

from collections.abc import Iterator

from memsr_compiler.models.catalogue import list_models
from memsr_compiler.teachers.teacher import as_teacher
from paper.crops import System, make_crops
from paper.pairs import SCALE, find_pair
from paper.quality import list_students, load_trained
from paper.settings import Settings
from paper.table import Table


def make(settings: Settings) -> Iterator[Table]:
    """Figure 4, after each of its systems."""
    teacher = as_teacher(find_pair(settings).teacher)
    systems = {"the teacher": System(teacher.module, teacher.takes)}
    systems |= {name: System(net, teacher.takes) for name, (net, _) in list_students(settings).items()}
    for name in ("IMDN", *(model.name for model in list_models() if model.scale == SCALE and not model.int8)):
        trained = load_trained(name, SCALE, settings)
        if trained is not None:
            systems[name] = System(trained[0], trained[1])
    return make_crops(4, SCALE, systems, settings)
