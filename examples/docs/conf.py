"""Sphinx' settings for the site that build.py puts together. Nothing is fetched while it is built or read."""

from docutils import nodes
from sphinx.application import Sphinx

from nvattest._package import __version__

project = "nvattest"
author = "The nvattest developers"
copyright = author  # noqa: A001 - Sphinx' name
version = release = __version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "index"
# Every reference has to lead somewhere, as make docs turns warnings into errors.
nitpicky = False
myst_heading_anchors = 4
# Options keep their two dashes.
smartquotes = False
myst_enable_extensions = ["deflist"]
# What is shown in the documents without a language is not Python.
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"nvattest {__version__}"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#3f6b00", "color-brand-content": "#3f6b00"},
    "dark_css_variables": {"color-brand-primary": "#9bd13b", "color-brand-content": "#9bd13b"},
}


def _dashes(_: object, tree: nodes.document, __: str) -> None:
    """A dash between a parameter and what it is, where smart quotes are off."""
    for text in list(tree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app: Sphinx) -> None:
    app.connect("doctree-resolved", _dashes)
