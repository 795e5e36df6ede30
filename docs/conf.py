"""The site: `make docs` builds it into build/docs.  Its source is the repository, so that links work here as there.

By Sphinx, which is well kept, reads docstrings, and can take every broken link for an error; MkDocs 1 gets no more
releases, and what follows it is too young to choose among.
"""

from __future__ import annotations

import sys
from pathlib import Path

from memsr_compiler.version import VERSION

sys.path.insert(0, str(Path(__file__).parent))  # for from_code

project = "memsr_compiler"
author = "the memsr_compiler authors"
version = release = VERSION
html_title = f"memsr_compiler {VERSION}"

root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**", "examples/MODELS.md"]
exclude_patterns = [".*", "build", "dist", "memsr_compiler", "passes", "tests", "benchmarks", "demo-output"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "from_code"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
nitpicky = True  # a reference to nothing is an error
nitpick_ignore_regex = [("py:.*", ".*")]  # but the types in signatures are not all ours

smartquotes = False  # "fold" is what one types
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_extra_path = ["root"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
highlight_language = "text"
