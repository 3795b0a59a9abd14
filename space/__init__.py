"""The web page of a model: HTML, CSS and JavaScript in page/, put together by `python -m modeling_sere.space`."""
