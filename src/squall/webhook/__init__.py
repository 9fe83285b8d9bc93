"""Admission: defaults, validation and authorisation, as an API server asks for them."""
