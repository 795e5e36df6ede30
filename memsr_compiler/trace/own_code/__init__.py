"""Code of networks: whether it goes one way for every image, or a tracer saw one of several.

tensors_only               whether it took anything but tensors out of tensors, as it ran
known_code, known_values   whether it is of forms of which a tracer hears all; bytecode, own_kinds
unheard, decisions         looks at code that is not: an image whose numbers are followed, sides that are symbols,
                           other sizes; numbers, read_off
statements                 lines that only refuse an image, or tell a person
own_files, places          whose code is, and where
"""
