"""torch.fx graphs: the two ways to one, and what each of its nodes is as an operation of ours.

tracers, asked             the graph, by either tracer; what code asks on the way is answered
renamed                    names that neither tracer can write into code
programs, regions, needed  whether a graph is all that runs; parts that are graphs of their own; what the result needs
rewritten, bounded         programs as they were made, beside what they are rewritten into; how much a run may make
claims                     what a file says of the tensors of its program, computed again
size_arithmetic            how long it takes to compute what programs compute of sizes
reader, unchanged          nodes as operations; whether tensors of numbers are the same at each
"""
