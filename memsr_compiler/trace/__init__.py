"""Reading an nn.Module or an ONNX file into a graph; the only folder that knows torch.fx, torch.export and ONNX.

trace.py is the way in.  What reads a network:

    subject, samples           runs it, for what each reading is compared with, and refuses what cannot be read
    fx/                        the torch.fx graph, by either tracer, node by node as operations of ours
    torch_ops/                 a word for each of torch's operations
    builder, views             the graph that is built, and its tensors while it is
    spread, large_constants    constants as large as the image, or one for each, of which a number stands for many;
                               constants that round
    approximate/               the same, with numbers in the place of gates
    onnx/, tflite/             files of these kinds

A tracer sees one way through code.  What finds code that has others, by the image's size or its pixels:

    own_code/                  what the code is, whose, and what it asks for
    kept/                      what it keeps from one run to the next, put back after runs
"""
