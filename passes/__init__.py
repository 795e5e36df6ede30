"""The rewrites, one a file, and the recipes in which they are used.

CANONICAL turns a traced teacher into convolutions, sums and ReLUs at one resolution: op by op (LOCAL), then folded
(FOLD; with `tail="keep"`, stage by stage).  PLAIN turns that into a plain network, level by level.
"""

from memsr_compiler.passes.activation_to_relu import activation_to_relu
from memsr_compiler.passes.affine_to_conv import affine_to_conv
from memsr_compiler.passes.align_channels import align_channels
from memsr_compiler.passes.dense_conv import dense_conv
from memsr_compiler.passes.drop_channels import drop_channels
from memsr_compiler.passes.fold_shuffle import fold_shuffle
from memsr_compiler.passes.fuse_1x1 import fuse_1x1
from memsr_compiler.passes.gather_terms import gather_terms
from memsr_compiler.passes.insert_relu import insert_relu
from memsr_compiler.passes.merge_parallel import merge_parallel
from memsr_compiler.passes.one_pad import one_pad
from memsr_compiler.passes.skip_to_conv import skip_to_conv
from memsr_compiler.passes.upsample_to_shuffle import upsample_to_shuffle

LOCAL = (dense_conv, affine_to_conv, activation_to_relu, upsample_to_shuffle)
FOLD = (fold_shuffle, gather_terms)
CANONICAL = (*LOCAL, *FOLD)
PLAIN = (skip_to_conv, insert_relu, one_pad, fuse_1x1, merge_parallel, drop_channels, align_channels)

__all__ = [
    "CANONICAL",
    "FOLD",
    "LOCAL",
    "PLAIN",
    "activation_to_relu",
    "affine_to_conv",
    "align_channels",
    "dense_conv",
    "drop_channels",
    "fold_shuffle",
    "fuse_1x1",
    "gather_terms",
    "insert_relu",
    "merge_parallel",
    "one_pad",
    "skip_to_conv",
    "upsample_to_shuffle",
]
