"""How the site is built: `make docs`. Pages are Markdown, those of the reference are written by docs/_ext first."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from densevit import __version__  # noqa: E402

project = "densevit"
author = "the authors of densevit"
release = version = __version__
copyright = "Apache-2.0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "links",
    "reference",
]
source_suffix = {".md": "markdown", ".markdown": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_ext"]
myst_heading_anchors = 4
default_role = "py:obj"
smartquotes = False  # values of keys are to be copied, and options begin with two hyphens

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True
add_module_names = False
python_maximum_signature_line_length = 88
python_trailing_comma_in_multi_line_signatures = False
viewcode_line_numbers = True

html_theme = "furo"
html_title = f"densevit {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_show_copyright = html_show_sphinx = False
pygments_style, pygments_dark_style = "friendly", "monokai"
copybutton_exclude = ".linenos, .gp, .go"
