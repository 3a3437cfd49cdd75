"""The page: a Streamlit app over `Specializer`, with no logic of its own."""
