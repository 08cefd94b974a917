"""The page, arranged with gradio; what is computed is in `densevit.web.views`."""
