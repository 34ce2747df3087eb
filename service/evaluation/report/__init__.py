"""The report of an evaluation: figures computed from the evidence, a bundle with everything a report may show, a page.

Evidence and metrics enter; the JSON report (`bundle`) and one HTML file (`page`) leave. `figures` computes the figures,
`views` and `formatting` prepare their data for the templates.
"""
