"""Between a person and a command: options, values as people write them, config files, and what is printed.

command                     a command out of a dataclass; options, training_options  every option, once
quantities, budgets         values as text: 1.2M, 40MB, theta 0.05
config_file                 options from YAML; example  a command line that lacks something, completed
output, check_outputs       tables, messages and progress; files that are about to be written
"""
