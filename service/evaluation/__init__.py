"""Evaluation: whether a generator's samples are realistic, diverse, not copies, and show the requested label.

A request becomes a specification (`specification`) and a job (`jobs`). The `pipeline` draws samples through the
gateway, has workers extract features and builds the evidence; `panels` compute metrics from it with `statistics`;
`verdicts` and `gates` compare them with real data and with the request; `report` renders the result.
"""
