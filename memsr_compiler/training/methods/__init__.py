"""Methods of distillation that MemSR is compared with, each an objective of its own."""
