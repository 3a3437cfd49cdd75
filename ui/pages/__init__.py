"""The pages; `ui/app.py` lists them."""
