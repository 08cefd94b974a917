"""A page in the browser on which a trained model is tried: `densevit demo`.

What is computed is in ``views/``, which needs no gradio; ``pages/`` arranges it, and ``server.py`` serves it.
"""
