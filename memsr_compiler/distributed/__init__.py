"""Work for many workers, on one machine or a cluster: classes for Ray Data's `map_batches`.

    ray.data.from_items([{"path": path} for path in paths]).map_batches(
        EnlargeFiles, fn_constructor_kwargs={"folder": "large"}, batch_size=1, num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=8),
    )

`EnlargeFiles` and `EnlargeImages` enlarge images; `DeriveStudents` does a sweep's students, of which `write_curve`
makes table and plot.

Nothing here needs Ray: a class holds a network, ready to run, and is called with batches, dictionaries of columns.
"""

from memsr_compiler.distributed.images import EnlargeFiles, EnlargeImages
from memsr_compiler.distributed.students import DeriveStudents, write_curve

__all__ = ["DeriveStudents", "EnlargeFiles", "EnlargeImages", "write_curve"]
