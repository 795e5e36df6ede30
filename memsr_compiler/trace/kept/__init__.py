"""Values that networks keep from one run to the next where no weights are, and how they are put back.

remembered, first_runs     whether there are any: from any run, or from the first image
held_values, noted         what a network holds, itself and wherever its code leads, and what of it is another later
"""
