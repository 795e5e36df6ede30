"""Networks, photographs and own code that a command is given, found and read.

named, default_files        a file by the name of a student that ships, or where none is named
teachers, networks          a teacher as the options say; any network, ready to run
material                    photographs to measure on
own_code, texts_in_code     the user's own code of --arch, and files that it may read
"""
