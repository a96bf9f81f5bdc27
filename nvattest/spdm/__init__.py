"""SPDM reports: the request, the response with its measurements and opaque data, and the report that joins them."""
