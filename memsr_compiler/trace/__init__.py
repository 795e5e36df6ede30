"""Reading an nn.Module or an ONNX file into a graph; the only folder that knows torch.fx, torch.export and ONNX.

trace.py is the way in.  What reads a network:

    subject, samples           runs it, for what each reading is compared with, and refuses what cannot be read
    tracers, asked             the torch.fx graph, by either tracer; what code asks on the way is answered
    fx_reader, needed, views   the graph, node by node, as operations of ours; torch_ops/ has a word for each
    spread                     constants as large as the image, or one for each, of which a number stands for many
    builder, large_constants   the graph that is built, and constants in it that round
    approximate/               the same, with numbers in the place of gates
    onnx/, tflite/             files of these kinds

A tracer sees one way through code.  What finds code that has others, by the image's size or its pixels:

    tensors_only               whether it took anything but tensors out of tensors, as it ran
    known_code, known_values   whether it is of forms of which a tracer hears all; bytecode, own_kinds, programs
    unheard, decisions         looks at code that is not: an image whose numbers are followed, sides that are symbols,
                               other sizes; numbers, read_off
    remembered, first_runs     what it keeps from one run to the next
    held_values, noted         what it holds, put back after runs
    statements                 lines that only refuse an image, or tell a person
    own_files, places          whose code is, and where
"""
